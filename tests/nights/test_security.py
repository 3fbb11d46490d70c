"""Secrets stay secret: in no log, no command line, no message, and not in the database."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import make_url

from nightshift.stack import Stack
from tests.nights.night import Night

pytestmark = pytest.mark.night


@pytest.fixture
def secrets(stack: Stack) -> dict[str, str]:
    """Secrets that nobody may read, by name."""
    passwords = {
        name: make_url(url).password
        for name, url in (
            ("postgres", stack.urls().database_url),
            ("redis", stack.urls().redis_url),
        )
    }
    assert all(passwords.values())
    named = {name: str(word) for name, word in passwords.items()}
    return {**named, "milvus": stack.urls().milvus_token, "source": "token-nobody"}


def test_no_secret_is_in_a_log_a_command_line_a_message_or_the_database(
    secrets: dict[str, str],
    night: Night,
    stack: Stack,
    scenes: Path,
    embedder: str,
    scorer: str,
):
    night.worker()
    night.cli("catalog", "import", "scenes", str(scenes / "items.jsonl"), "--json")
    night.cli("index", "build", "scenes", "--embedder", embedder, "--wait", "--json")
    rerank = ("rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"))
    said = [night.cli(*rerank, "--scorer", scorer, "--top-k", "2", "--wait", "--json")]
    said += [
        night.cli(*words, check=False) for words in (("doctor",), ("status",), ("worker", "list"))
    ]
    said.append(night.cli("catalog", "import", "far", "http://user:token-nobody@127.0.0.1:9/a.csv",
                          check=False))  # fmt: skip
    # Whoever finds a service away, or refusing the password, says so.
    refused = _refused(night)

    def secrets_in(text: str) -> list[str]:
        return [name for name, secret in secrets.items() if secret in text]

    assert secrets_in((stack.data_dir / "stack.json").read_text()) == [
        "postgres",
        "redis",
        "milvus",
    ]
    assert all(done.returncode for done in refused)
    assert {
        name for done in (*said, *refused) for name in secrets_in(done.stdout + done.stderr)
    } == set()
    assert {name for text in _command_lines() for name in secrets_in(text)} == set()
    logs = [*night.logs.iterdir(), *(stack.data_dir / "logs").iterdir()]
    assert {name for log in logs for name in secrets_in(log.read_text(errors="replace"))} == set()
    assert {name for row in _every_row(night) for name in secrets_in(row)} == set()
    assert {name for value in _redis_values(night) for name in secrets_in(value)} == set()


def _refused(night: Night) -> list[CompletedProcess[str]]:
    """Commands whose services are elsewhere, or have another password."""
    reported = []
    wrong_token = night.settings.model_copy(update={"milvus_token": SecretStr("x")})
    reported.append(replace(night, settings=wrong_token).cli("doctor", check=False))
    for name in ("database_url", "redis_url"):
        url = getattr(night.settings, name).get_secret_value()
        for wrong in (url.replace("127.0.0.1:", "127.0.0.1:1"), url.replace("@", "x@")):
            changed = night.settings.model_copy(update={name: SecretStr(wrong)})
            reported.append(replace(night, settings=changed).cli("doctor", check=False))
    return reported


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue


def _every_row(night: Night) -> Iterator[str]:
    tables = night.rows("SELECT quote_ident(relname) FROM pg_stat_user_tables")
    assert len(tables) > 10
    for (table,) in tables:
        for (row,) in night.rows(f"SELECT one::text FROM {table} one"):
            yield str(row)


def _redis_values(night: Night) -> Iterator[str]:
    with redis.Redis.from_url(night.settings.redis_url.get_secret_value()) as client:
        for key in client.scan_iter():
            yield repr(key) + repr(client.dump(key))
