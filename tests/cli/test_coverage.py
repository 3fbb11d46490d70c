"""Whatever shows a run says how much of it there is, and measures nothing that is not there."""

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.states import RunState
from nightshift.stores.ledger import runs
from tests.results.ranked import add_reference_run

#: Commands that read rankings, and what a run with some, but not all, prints of each.
COMMANDS = {
    "results": ("results", "1"),
    "export": ("results", "1", "--format", "csv"),
    "evaluate": ("evaluate", "1"),
    "calibration": ("calibration", "1"),
    "report": ("report", "1", "--output", "run.html"),
}
MEASURES = ("recall", "map", "0.0000")


@pytest.fixture
def cli(database_url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {
        "NIGHTSHIFT_DATABASE_URL": database_url,
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "nothing-here"),
    }
    return lambda *words: CliRunner(env=environment).invoke(main, words)


def end(database, state: RunState, *, ranked: bool = True) -> None:
    """Run 1 with four of its five queries ranked, or as it is before the stage that ranks."""
    run_id = add_reference_run(database)
    with database.begin() as connection:
        if state is not RunState.RUNNING:
            runs.set_run_state(connection, run_id, state)
        if not ranked:
            # The scores were written by then; the reference run keeps none.
            connection.execute(
                text(
                    "INSERT INTO candidate (run_id, query_id, item_id, content_id, coarse_rank, "
                    "coarse_score, score_id) SELECT run_id, query_id, item_id, 1, coarse_rank, "
                    "coarse_score, final_rank FROM ranking WHERE margin IS NOT NULL"
                )
            )
            connection.execute(text("DELETE FROM ranking"))
            connection.execute(text("DELETE FROM calibration"))


@pytest.mark.parametrize(
    ("state", "exit_code", "words"),
    [
        (RunState.CANCELLED, 1, "4 of 5 queries have a ranking; the run was cancelled"),
        (RunState.FAILED, 1, "4 of 5 queries have a ranking; the run failed"),
        (RunState.DONE, 7, "4 of 5 queries have a ranking"),
        (RunState.PAUSED, 0, "4 of 5 queries have a ranking; the run is paused"),
        (RunState.RUNNING, 0, "4 of 5 queries have a ranking; the run goes on"),
    ],
)
def test_a_run_that_lacks_a_ranking_says_so_in_words_and_by_exit_code(
    cli, database, tmp_path, state, exit_code, words
):
    end(database, state)

    for name, command in COMMANDS.items():
        done = cli(*command)
        assert done.exit_code == exit_code, (name, done.output)
        assert words in done.stderr, name
    assert words in (tmp_path / "run.html").read_text()
    assert words in cli("run", "show", "1").stdout
    for command in (("evaluate", "1"), ("calibration", "1"), ("run", "show", "1")):
        facts = json.loads(cli(*command, "--json").stdout)["coverage"]
        assert (facts["queries"], facts["ranked"], facts["state"]) == (5, 4, state)
    assert "0 of 5 queries have an answer" in cli("answer", "1").stderr


@pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.RUNNING])
def test_a_run_without_rankings_exports_and_measures_nothing(cli, database, tmp_path, state):
    end(database, state, ranked=False)

    for words in (
        *((*COMMANDS["export"][:3], name, "--output", "x") for name in ("csv", "jsonl", "trec")),
        COMMANDS["evaluate"],
        COMMANDS["report"],
    ):
        done = cli(*words)
        assert done.exit_code == 4, done.output
        assert "0 of 5 queries have a ranking" in done.stderr
        assert "with 10 of 11 pairs scored" in done.stderr
        assert done.stdout == ""
        assert not any(measure in done.stderr for measure in MEASURES)
    assert list(tmp_path.iterdir()) == []


def test_a_query_without_a_ranking_is_not_exported_as_an_empty_file(cli, database, tmp_path):
    end(database, RunState.CANCELLED)

    lacking = cli("results", "1", "--query", "q5", "--format", "jsonl", "--output", "x")
    shown = cli("results", "1", "--query", "q1")

    assert (lacking.exit_code, list(tmp_path.iterdir())) == (4, [])
    assert "query 'q5' has no ranking in run 1" in lacking.stderr
    assert shown.exit_code == 0
    assert "4 of 5 queries have a ranking; the run was cancelled" in shown.stderr


def test_a_complete_run_says_nothing_of_it(cli, database):
    end(database, RunState.DONE)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM query WHERE external_id = 'q5'"))

    for command in COMMANDS.values():
        done = cli(*command)
        assert done.exit_code == 0, done.output
        assert "have a ranking" not in done.output
