"""A command that waited for its run says what failed in it, and its exit code says so too."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, text

from nightshift.cli.main import main
from nightshift.demo import coarse_dir, scorer_dir
from nightshift.schema.settings import Settings
from nightshift.schema.states import RunState, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger import runs
from nightshift.stores.postgres.database import Database
from tests.results.ranked import add_reference_run

# Where nobody ends the run, the command waits for ever.
pytestmark = pytest.mark.timeout(60)

Act = Callable[[Connection, int], None]

SCORER = f"hf:{scorer_dir()}"
COMMANDS = {
    "index": ("index", "build", "things", "--embedder", f"open_clip:{coarse_dir()}"),
    "tokens": ("tokens", "build", "things", "--scorer", SCORER),
    "rerank": ("rerank", "things", "--queries", "queries.jsonl", "--scorer", SCORER),
}


@pytest.fixture
def cli(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs a command line; run 1 is done, its index is ready, and nobody works."""
    (tmp_path / "images").mkdir()
    add_reference_run(database, tmp_path / "images")
    with database.begin() as connection:
        runs.set_run_state(connection, 1, RunState.DONE)
        connection.execute(text("UPDATE \"index\" SET state = 'ready'"))
    monkeypatch.chdir(tmp_path)
    Path("queries.jsonl").write_text('{"id": "a", "text": "a teal thing"}\n{"id": "b"}\n')
    assert settings.database_url
    environment = {
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "data"),
        "NIGHTSHIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "NIGHTSHIFT_MILVUS_URI": settings.milvus_uri,
        "NIGHTSHIFT_MILVUS_TOKEN": settings.milvus_token.get_secret_value(),
        "NIGHTSHIFT_REDIS_URL": "redis://nobody",
    }
    return lambda *words: CliRunner(env=environment).invoke(main, words)


@pytest.fixture
def somebody(database: Database) -> Callable[[Act], AbstractContextManager[None]]:
    """Acts on the first run that it sees running."""

    @contextmanager
    def acting(act: Act) -> Iterator[None]:
        stop = Event()

        def look() -> None:
            while not stop.wait(0.05):
                with database.begin() as connection:
                    run_id = connection.execute(
                        text("SELECT max(id) FROM run WHERE state = 'running'")
                    ).scalar()
                    if run_id is not None:
                        act(connection, run_id)
                        return

        thread = Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    return acting


def _cancel(connection: Connection, run_id: int) -> None:
    runs.set_run_state(connection, run_id, RunState.CANCELLED)


def _end_with_failures(connection: Connection, run_id: int) -> None:
    """Two things fail, and one is only remarked upon."""
    for subject, reason, fatal in (
        ("i1", "image_missing", True),
        ("i2", "image_missing", True),
        ("i3", "text_truncated", False),
    ):
        record_failure(
            connection,
            run_id=run_id,
            stage="embed",
            subject_kind=SubjectKind.ITEM,
            subject_id=subject,
            reason=reason,
            message="put it back",
            fatal=fatal,
        )
    connection.execute(
        text(
            "UPDATE job SET state = 'failed', n_failed = n_units, finished_at = now() "
            "WHERE run_id = :run AND state = 'queued'"
        ),
        {"run": run_id},
    )
    runs.set_run_state(connection, run_id, RunState.DONE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_with_failures_ends_with_7_and_names_them(cli, somebody, command):
    with somebody(_end_with_failures):
        done = cli(*COMMANDS[command], "--wait", "--json")

    printed = json.loads(done.stdout)
    # The second row of the file of queries has neither text nor image.
    of_file = {"missing_field": 1} if command == "rerank" else {}
    assert (done.exit_code, printed["state"]) == (7, "done")
    assert printed["reasons"] == {"image_missing": 2, **of_file}
    assert printed["failed"] == sum(printed["reasons"].values())


def test_failures_are_reported_in_words_too(cli, somebody):
    with somebody(_end_with_failures):
        done = cli(*COMMANDS["index"], "--wait")

    assert done.exit_code == 7
    assert re.search(r"run 2 is done, but all of its \d+ items failed", done.stderr)
    assert "2 failed (2 image_missing): `nightshift run failures 2` lists them" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cancelled_run_ends_with_1(cli, somebody, command):
    with somebody(_cancel):
        done = cli(*COMMANDS[command], "--wait")

    assert done.exit_code == 1
    assert "run 2 is cancelled" in done.stderr


def test_bad_rows_of_a_file_of_queries_are_reported_without_waiting(cli):
    done = cli(*COMMANDS["rerank"])
    facts = json.loads(cli(*COMMANDS["rerank"], "--json").stdout)

    assert done.exit_code == 7
    assert "watch it with `nightshift run watch 2`" in done.stderr
    assert "1 failed (1 missing_field): `nightshift run failures 2` lists them" in done.stderr
    assert (facts["state"], facts["failed"], facts["reasons"]) == (
        "running",
        1,
        {"missing_field": 1},
    )


@pytest.mark.parametrize(("act", "exit_code"), [(_end_with_failures, 7), (_cancel, 1)])
def test_queries_that_stay_without_an_answer_are_counted(cli, somebody, act, exit_code):
    with somebody(act):
        done = cli("answer", "1", "--all", "--wait")

    assert done.exit_code == exit_code
    assert {7: "4 queries have no answer", 1: "run 1 is cancelled"}[exit_code] in done.stderr
