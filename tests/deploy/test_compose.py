"""The compose file against the Compose specification, our house rules and our own commands.

No container engine is needed: what it would run is what other tests run.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml

from nightshift.stores.ledger.workers import register
from nightshift.stores.postgres.database import Database
from tests.command_lines import require_understood
from tests.compose import COMPOSE, COMPOSE_FILE, ROOT, SERVICES, TEXT, VARIABLE

OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("nightshift:")}
#: Ends before the others start.
HELPER = "volumes"
THEIRS = {name: s for name, s in SERVICES.items() if name not in {*OURS, HELPER}}
#: Of ours, those that run until they are stopped.
LASTING = ["dispatcher", "worker-cpu", "worker-gpu"]
#: Services that load models, or describe any model that an operator names.
RUN_MODELS = {"worker-cpu", "worker-gpu", "nightshift"}
_STAGE = re.compile(r"^FROM (\S+) AS (\S+)", re.MULTILINE)
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
#: As the builder reads it: a backslash at its end joins a line with the next.
JOINED = DOCKERFILE.replace("\\\n", "")
ENV_EXAMPLE = (ROOT / "deploy" / "env.example").read_text()


def services(which):
    return pytest.mark.parametrize("name", which)


def filled_in(tmp_path):
    """Settings as an operator would make them from the example."""
    values = {name: "secret123" for name, *_ in VARIABLE.findall(TEXT) if "PASSWORD" in name}
    env_file = tmp_path / ".env"
    lines = [f"{name}={value}" for name, value in {**values, "DATA_DIR": tmp_path}.items()]
    env_file.write_text("\n".join(lines))
    return env_file


def test_the_file_follows_the_compose_specification():
    check = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", COMPOSE_FILE),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert check.returncode == 0, check.stdout + check.stderr


def test_docker_compose_accepts_the_file(tmp_path):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False).returncode:
        pytest.skip("needs the Docker Compose plugin; no engine is needed")

    config = subprocess.run(
        [
            *(docker, "compose", "--file", COMPOSE_FILE, "--env-file", filled_in(tmp_path)),
            *("--profile", "cpu", "--profile", "gpu", "--profile", "tools", "config", "--quiet"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert config.returncode == 0, config.stderr


def test_it_runs_the_services_that_the_embedded_stack_runs():
    assert set(SERVICES) == {
        *("postgres", "redis", "etcd", "minio", "milvus"),
        *(HELPER, "migrate", "dispatcher", "worker-cpu", "worker-gpu", "nightshift"),
    }


@services(SERVICES)
def test_every_image_is_pinned_to_one_version(name):
    image, _, tag = SERVICES[name]["image"].rpartition(":")

    assert image
    assert re.search(r"\d+\.\d+\.\d+|\d+\.\d+-|RELEASE\.\d{4}-\d\d-\d\d", tag), tag


@services(OURS)
def test_our_image_carries_the_version_of_the_package(name):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    slim = "" if name in RUN_MODELS else "-slim"
    assert OURS[name]["image"] == f"nightshift:{version}{slim}"


@services(OURS)
def test_only_what_may_load_a_model_has_the_large_image(name):
    assert OURS[name]["build"] == {
        "context": ".",
        "dockerfile": "deploy/Dockerfile",
        "target": "worker" if name in RUN_MODELS else "slim",
    }


@services(OURS)
def test_every_command_of_ours_is_one_that_the_program_understands(name):
    service = OURS[name]

    require_understood([*service.get("entrypoint", []), *service["command"]])


@services([*THEIRS, *LASTING])
def test_every_service_has_a_health_check_and_comes_back_by_itself(name):
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_dispatcher_is_healthy_when_the_program_says_so():
    kind, *words = SERVICES["dispatcher"]["healthcheck"]["test"]

    assert kind == "CMD"
    require_understood(words)


def test_a_worker_is_healthy_while_it_reports_from_this_host(settings, database_url):
    kind, command = SERVICES["worker-cpu"]["healthcheck"]["test"]
    healthy = [run_as_in_a_container(command, settings)]
    with Database(database_url) as database, database.begin() as connection:
        about = {"device": "cpu", "stages": "embed", "pid": 1}
        register(connection, worker_id="a", host="another-host", **about)
    healthy.append(run_as_in_a_container(command, settings))
    with Database(database_url) as database, database.begin() as connection:
        register(connection, worker_id="b", host=socket.gethostname(), **about)
    healthy.append(run_as_in_a_container(command, settings))

    assert kind == "CMD-SHELL"
    assert healthy == [False, False, True]


def run_as_in_a_container(command, settings):
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NIGHTSHIFT_DATABASE_URL": settings.database_url.get_secret_value(),
    }
    return subprocess.run(["sh", "-c", command], env=environment, check=False).returncode == 0


def test_every_secret_must_be_given():
    variables = VARIABLE.findall(TEXT)
    secrets = {name: kind for name, kind, _ in variables if "PASSWORD" in name}

    assert set(secrets) == {
        *(f"{service}_PASSWORD" for service in ("POSTGRES", "REDIS", "MILVUS", "MINIO")),
        *(f"POSTGRES_{role}_PASSWORD" for role in ("MIGRATE", "WRITE", "READ")),
    }
    assert set(secrets.values()) == {"?"}, "a password must have no default"
    assert {kind for _, kind, _ in variables} <= {"?", "-"}, "unset would become empty"


def test_no_secret_is_written_down():
    """Whatever names a password is a variable and nothing else."""
    literal = [
        f"{name}: {key}"
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|SECRET|AUTH$|TOKEN|_URL", key) and not VARIABLE.search(str(value))
    ]

    assert literal == []
    assert re.findall(r"^\w*PASSWORD=.+", ENV_EXAMPLE, re.MULTILINE) == []


def test_the_example_settings_name_every_variable_and_no_other():
    named = set(re.findall(r"^#?(\w+)=", ENV_EXAMPLE, re.MULTILINE))

    assert named == {name for name, *_ in VARIABLE.findall(TEXT)}


@services(SERVICES)
def test_ports_are_published_on_the_loopback_only(name):
    assert [p for p in SERVICES[name].get("ports", []) if not p.startswith("127.0.0.1:")] == []


@services(SERVICES)
def test_no_container_has_the_rights_of_its_host(name):
    service = SERVICES[name]

    assert not service.get("privileged")
    assert service.get("cap_add", []) == (["CHOWN"] if name == HELPER else [])
    assert {service.get(key) for key in ("network_mode", "pid", "ipc")} == {None}
    assert not any("docker.sock" in volume for volume in service["volumes"])


@services(THEIRS)
def test_no_service_runs_as_root(name):
    """Ours neither: `USER` of the image, which no service changes."""
    uid, _, _ = SERVICES[name]["user"].partition(":")

    assert int(uid) > 0
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in SERVICES[name]["security_opt"]
    assert not any("user" in service for service in OURS.values())


def test_the_one_container_of_root_may_do_nothing_but_give_volumes_away():
    helper = SERVICES[HELPER]
    paths = {volume.partition(":")[0]: volume.partition(":")[2] for volume in helper["volumes"]}

    assert helper["command"] == ["chown", SERVICES["milvus"]["user"], *paths.values()]
    assert {SERVICES[name]["user"] for name in paths} == {SERVICES["milvus"]["user"]}
    assert (helper["cap_drop"], helper["read_only"]) == (["ALL"], True)
    assert (helper["restart"], helper["networks"]) == ("no", ["milvus"])
    for name in paths:
        assert SERVICES[name]["depends_on"][HELPER] == {
            "condition": "service_completed_successfully"
        }


def test_only_migrations_may_alter_the_database():
    roles = {
        name: re.findall(r"//(\w+):", service["environment"]["NIGHTSHIFT_DATABASE_URL"])
        for name, service in OURS.items()
    }

    assert roles.pop("migrate") == ["nightshift_migrate"]
    assert set(map(tuple, roles.values())) == {("nightshift_write",)}
    assert any("roles.sql:/docker-entrypoint" in entry for entry in SERVICES["postgres"]["volumes"])


@services(OURS)
def test_our_containers_cannot_write_outside_their_volumes(name):
    assert OURS[name]["read_only"] is True
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert OURS[name]["security_opt"] == ["no-new-privileges:true"]


def test_every_named_volume_is_declared_and_used():
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service["volumes"]
        if re.match(r"\w", volume)
    }

    assert used == set(COMPOSE["volumes"])


@services(THEIRS)
def test_what_must_survive_a_restart_lies_in_a_named_volume(name):
    assert any(volume.startswith(f"{name}:/") for volume in THEIRS[name]["volumes"])


def test_etcd_which_has_no_password_is_reached_by_milvus_alone():
    assert COMPOSE["networks"]["milvus"] == {"internal": True}
    assert SERVICES["etcd"]["networks"] == SERVICES["minio"]["networks"] == ["milvus"]
    assert [name for name, s in OURS.items() if "milvus" in s.get("networks", [])] == []


@services([*LASTING, "nightshift"])
def test_nothing_of_ours_starts_before_the_database_is_migrated(name):
    assert SERVICES[name]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "redis": {"condition": "service_healthy"},
        "milvus": {"condition": "service_healthy"},
    }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"


def test_workers_are_scaled_by_profile_and_only_the_gpu_ones_reserve_a_gpu():
    [device] = gpus(SERVICES["worker-gpu"])

    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["worker-cpu"]
    assert not any("container_name" in service for service in SERVICES.values())


def test_the_service_that_the_docs_add_for_a_second_gpu_differs_by_its_gpu_alone():
    page = (ROOT / "docs" / "operate.md").read_text()
    [lines] = re.findall(
        r"^  ```yaml\n(    worker-gpu-1:.*?)^  ```", page, re.MULTILINE | re.DOTALL
    )
    added = textwrap.indent(textwrap.dedent(lines), "  ")

    extended = yaml.safe_load(TEXT.replace("\nvolumes:\n", f"\n{added}\nvolumes:\n"))["services"]

    first, second = extended["worker-gpu"], extended.pop("worker-gpu-1")
    assert extended == SERVICES
    assert gpus(second) == [{**gpus(first)[0], "device_ids": ["1"]}]
    assert {**second, "deploy": None} == {**first, "deploy": None}


def gpus(service):
    return service["deploy"]["resources"]["reservations"]["devices"]


@services(OURS)
def test_a_stopping_worker_has_time_for_its_grace_period(name):
    from nightshift.schema.settings import Settings

    seconds = int(OURS[name]["stop_grace_period"].removesuffix("s"))

    assert seconds > Settings.model_fields["grace_s"].default


@services(OURS)
def test_every_setting_in_the_environment_is_one_the_program_reads(name):
    from nightshift.schema.settings import Settings

    known = {f"NIGHTSHIFT_{field.upper()}" for field in Settings.model_fields}

    assert set(OURS[name]["environment"]) <= known


def test_the_images_have_a_pinned_base_and_run_as_nobody_in_particular():
    stages = {
        name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)", DOCKERFILE, re.MULTILINE)
    }
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)

    outside = {base for base in stages.values() if base not in stages}
    [base] = outside
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", base)
    assert stages["slim"] == stages["worker"] == "base", "what builds is not shipped"
    assert users == ["10001:10001"]
    assert not re.search(r"PASSWORD|SECRET|TOKEN|^ADD ", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize(
    ("file", "extras", "base"),
    [("requirements", ("s3", "gcs"), True), ("requirements-worker", ("worker",), False)],
)
def test_an_image_is_built_with_what_the_package_and_its_extras_require(
    file, extras, base, tmp_path
):
    [line] = re.findall(rf"^RUN (python -c .*) > /tmp/{file}.txt", JOINED, re.MULTILINE)
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())

    printed = subprocess.run(
        ["sh", "-c", line.strip()],
        cwd=tmp_path,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    expected = [*(project["dependencies"] if base else ())]
    assert printed == [*expected, *(line for extra in extras for line in declared[extra])]


def test_the_build_sees_every_room_and_nothing_private():
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().split("\n") if line[:1] == "!"
    }
    rooms = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]

    assert kept == {"pyproject.toml", "README.md", "LICENSE", *rooms["dev-mode-dirs"]}
