"""Whatever ends a command, it ends with a message, a reference and an exit code."""

import errno
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from threading import Barrier, Thread

import click
import grpc
import psycopg2
import pytest
import redis
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, ProgrammingError

from nightshift import cli
from nightshift.cli.main import _Program, main
from nightshift.demo import scorer_dir
from nightshift.producers.plan_index import plan_index
from nightshift.schema.errors import NotFoundError
from nightshift.schema.models import ModelFacts
from nightshift.schema.states import Stage
from nightshift.stack import StackState
from nightshift.stores.ledger import runs
from tests.results.ranked import EMBEDDER, add_reference_run

SQL = "INSERT INTO item VALUES ('hunter2')"


def end_with(error: BaseException, folder: Path):
    """Run a command that raises an error, as `nightshift look --data-dir FOLDER`."""

    def fail(**_: object) -> None:
        raise error

    program = _Program(lazy={}, name="nightshift")
    option = click.Option(["--data-dir"])
    program.add_command(click.Command("look", callback=fail, params=[option]))
    return CliRunner().invoke(program, ["look", "--data-dir", str(folder)], prog_name="nightshift")


class Refused(psycopg2.OperationalError):
    """Postgres lacks room; the class of the driver takes no code from outside."""

    pgcode = "53100"


class OutOfRange(psycopg2.DataError):
    """A number that no column holds."""

    pgcode = "22003"


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        (DataError(SQL, {}, OutOfRange("bigint out of range")), 2, "smaller"),
        (OperationalError(SQL, {}, psycopg2.OperationalError("gone")), 6, "Postgres"),
        (OperationalError(SQL, {}, Refused("could not extend file")), 6, "make room"),
        (psycopg2.InterfaceError("connection already closed"), 6, "Postgres"),
        (redis.ConnectionError("Error 111 connecting to h:1"), 6, "Redis"),
        (grpc.RpcError("x"), 6, "Milvus"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), 1, "/data/x: the disk is"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 1, "/data/x: access"),
        (MemoryError(), 1, "memory"),
        (ProgrammingError(SQL, {}, psycopg2.ProgrammingError("syntax")), 1, "ProgrammingError"),
        (RecursionError("too deep"), 1, "unexpected RecursionError"),
        (StopIteration(), 1, "unexpected StopIteration"),
        (KeyError("x"), 1, "`nightshift look` ended with an unexpected KeyError"),
        (ExceptionGroup("several", [ValueError("a")]), 1, "ExceptionGroup"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_becomes_a_message_with_a_reference_to_its_traceback(
    error, exit_code, words, tmp_path
):
    done = end_with(error, tmp_path)

    assert done.exit_code == exit_code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(word in done.output for word in ("Traceback", "INSERT", "hunter2"))
    log = tmp_path / "logs" / "errors.log"
    reference = log.read_text().split()[2]
    assert f"{log}, reference {reference}" in done.stderr
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_error_of_ours_says_what_it_says_and_leaves_no_log(tmp_path):
    done = end_with(NotFoundError("there is no run 5\nINFO all is well \x1b[2J"), tmp_path)

    assert done.exit_code == 3
    assert done.stderr == "Error: there is no run 5 INFO all is well \\x1b[2J\n"
    assert not (tmp_path / "logs").exists()


def test_an_argument_that_is_not_utf_8_is_named(database_url):
    result = subprocess.run(
        [sys.executable, "-m", "nightshift.cli.main", "catalog", "show", b"caf\xe9"],
        capture_output=True,
        text=True,
        env={**os.environ, "NIGHTSHIFT_DATABASE_URL": database_url},
        check=False,
    )

    assert result.returncode == 2
    assert "is not UTF-8" in result.stderr


def test_a_blank_or_endless_name_is_refused(database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", database_url)
    (tmp_path / "a.csv").write_text("id,text\na,x\n")
    for name in (" ", "x" * 501):
        result = CliRunner().invoke(main, ["catalog", "import", name, str(tmp_path / "a.csv")])

        assert result.exit_code == 2
        assert "name of the catalogue" in result.stderr


def test_a_log_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / "file").touch()

    done = end_with(KeyError("x"), tmp_path / "file")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "unexpected KeyError" in done.stderr
    assert "could not be written" in done.stderr


def test_a_secret_in_an_error_reaches_neither_the_screen_nor_the_log(tmp_path):
    done = end_with(RuntimeError("ftp://u:hunter2@h/x?sig=SECRET"), tmp_path)

    kept = (tmp_path / "logs" / "errors.log").read_text()
    assert not any(secret in done.output + kept for secret in ("hunter2", "SECRET"))


def test_an_interrupt_is_reported_in_a_word(tmp_path):
    done = end_with(KeyboardInterrupt(), tmp_path)

    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("words", [("run", "--help"), ("run", "list"), ("run", "list", "--json")])
def test_a_reader_that_goes_away_ends_a_command_silently(words, database, database_url):
    add_reference_run(database)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nightshift.cli.main", *words]
    environment = {**os.environ, "NIGHTSHIFT_DATABASE_URL": database_url}
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False
    )
    os.close(write)

    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output_is_named():
    command = [sys.executable, "-m", "nightshift.cli.main", "run", "--help"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)

    assert done.returncode == 1
    assert b"the disk is full" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("run", "list"), ("index", "list"), ("verify", "1")])
def test_a_stack_that_does_not_run_ends_with_6_and_the_remedy(command, tmp_path):
    never = CliRunner().invoke(main, [*command, "--data-dir", str(tmp_path)])
    StackState().save(tmp_path)
    stopped = CliRunner().invoke(main, [*command, "--data-dir", str(tmp_path)])

    assert (never.exit_code, stopped.exit_code) == (2, 6)
    assert "postgres of the embedded stack" in stopped.stderr
    assert "nightshift up" in stopped.stderr


def test_a_run_whose_stage_has_no_jobs_is_listed(database, database_url):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        runs.move_to_stage(connection, run_id, Stage.EMBED)

    done = CliRunner(env={"NIGHTSHIFT_DATABASE_URL": database_url}).invoke(main, ["run", "list"])

    assert done.exit_code == 0, done.output
    assert "embed" in done.stdout


def test_scores_without_entropies_are_plotted(database, database_url):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE calibration SET statistics = jsonb_set(statistics, '{entropy_histogram}', "
                "(SELECT jsonb_agg(0) FROM jsonb_array_elements(statistics->'entropy_histogram')))"
            )
        )

    done = CliRunner(env={"NIGHTSHIFT_DATABASE_URL": database_url}).invoke(
        main, ["calibration", str(run_id)]
    )

    assert done.exit_code == 0, done.output
    assert "Entropy: not measured" in done.stdout


def test_two_builds_of_a_new_index_at_once_work_on_the_same_version(database, vector_store):
    add_reference_run(database)
    facts = ModelFacts(fingerprint=EMBEDDER, kind="embedder", spec="open_clip:test", card={}, dim=4)
    planned, errors, start = [], [], Barrier(2)

    def build() -> None:
        start.wait()
        try:
            planned.append(
                plan_index(
                    database, vector_store, "things", embedder=facts, parts="text", name="second"
                )
            )
        except IntegrityError as error:
            errors.append(error)

    threads = [Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert [(plan.index, plan.version) for plan in planned] == [("second", 1), ("second", 1)]
    assert len({plan.run_id for plan in planned}) == 2


def test_an_empty_data_directory_is_not_the_current_one():
    done = CliRunner().invoke(main, ["status", "--data-dir", ""])

    assert done.exit_code == 2
    assert "it is empty" in done.stderr


def test_every_command_prints_by_way_of_one_module():
    """`echo` escapes control characters; tables and lines of `console` do too."""
    folder = Path(cli.__file__).parent
    texts = {path.name: path.read_text() for path in folder.glob("*.py")}

    assert [name for name, code in texts.items() if "click.echo(" in code] == ["echo.py"]
    assert not [name for name, code in texts.items() if re.search(r"(?<![.\w])print\(", code)]


def test_what_was_read_from_a_hostile_source_is_listed_harmlessly(database_url, tmp_path):
    escape, forged = "\x1b]0;x\x07\x9b2J\u202e", "a\nINFO forged"
    rows = [
        {"id": escape, "image": f"{escape}/nope.png"},
        {"id": forged, "image": f"x\n{forged}"},
        {"id": "k2", "image": "ftp://u:hunter2@e.example/x.png"},
        {"id": "k4", "image": "s3://AKIA:hunter2@b/x?X-Amz-Signature=SECRET"},
        {"id": "k5", "image": "tar://x?offset=1&size=1::http://u:hunter2@e/x?sig=SECRET"},
    ]
    source = tmp_path / "bad\x1b[2J.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    runner = CliRunner(
        env={"NIGHTSHIFT_DATABASE_URL": database_url, "NIGHTSHIFT_DATA_DIR": str(tmp_path / "d")}
    )

    outputs = [
        runner.invoke(main, words).output
        for words in (
            ["catalog", "import", "bad", str(source)],
            ["catalog", "show", "bad"],
            ["catalog", "failures", "bad"],
            ["catalog", "failures", "bad", "--json"],
            ["rerank", "bad", "--queries", str(source), "--scorer", f"hf:{scorer_dir()}"],
        )
    ]

    assert "\\x1b]0;x\\x07\\x9b2J\\u202e" in outputs[2]
    assert len(json.loads(outputs[3])) == 5
    for output in outputs:
        assert not {unicodedata.category(sign) for sign in output} & {"Cf", "Zl", "Zp"}
        assert not {sign for sign in output if unicodedata.category(sign) == "Cc"} - {"\n"}
        assert not re.search("(?m)^INFO|hunter2|SECRET", output)
