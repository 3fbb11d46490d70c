"""The commands that read results, run as a user runs them."""

import csv
import io
import json

import pytest
from click.testing import CliRunner
from pyarrow import parquet
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.states import RunState, TallyName
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.counters import write_tallies
from tests.results.ranked import LISTS, SCORER, add_reference_run
from tests.stores.ledger_helpers import add_index_run


@pytest.fixture
def cli(database_url, tmp_path):
    """Run a command line against this test's database; nothing else is configured."""
    environment = {
        "NIGHTSHIFT_DATABASE_URL": database_url,
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "nothing-here"),
        "COLUMNS": "200",
    }

    def run(*words: str, exit_code: int = 0):
        done = CliRunner(env=environment).invoke(main, words)
        assert done.exit_code == exit_code, done.output
        return done

    return run


def test_a_table_shows_every_row_with_what_decided_it(cli, database):
    run_id = add_reference_run(database)

    table = cli("results", str(run_id)).stdout

    lines = [line.split() for line in table.splitlines() if line]
    assert ["q1", "i3", "1", "3", "0.700", "4.00", "0.982", "0.100", "7", "score", "1"] in lines
    assert ["i2", "3", "1", "0.900", "–", "–", "–", "coarse", "1"] in lines
    assert ["q2", "i5", "1", "2", "0.800", "5.50", "0.996", "0.020", "1", "(2)", "entropy",
            "2"] in lines  # fmt: skip


def test_one_query_is_shown_with_its_texts(cli, database):
    run_id = add_reference_run(database)

    table = cli("results", str(run_id), "--query", "q2").stdout

    assert "Query q2: text of q2" in table
    assert "text of i5" in table
    assert SCORER in table
    assert "text of i1" not in table


def test_markup_and_control_signs_of_a_catalogue_are_shown_as_they_are(cli, database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE item SET external_id = '[red]x[/nonsense]' || chr(27) || '[2J' "
                "WHERE external_id = 'i5'"
            )
        )

    table = cli("results", str(run_id)).stdout

    assert "[red]x[/nonsense]\\x1b[2J" in table
    assert "\x1b" not in table


def test_a_file_is_written_whole_or_not_at_all(cli, database, tmp_path):
    run_id = add_reference_run(database)
    target = tmp_path / "rows.parquet"

    cli("results", str(run_id), "--format", "parquet", "--output", str(target))
    cli("results", "99", "--format", "csv", "--output", str(tmp_path / "no.csv"), exit_code=3)

    assert parquet.read_table(target).num_rows == sum(map(len, LISTS.values()))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_folder_that_is_not_there_is_named(cli, database, tmp_path):
    run_id = add_reference_run(database)

    done = cli("results", str(run_id), "--output", str(tmp_path / "no" / "x.csv"), exit_code=1)

    assert "x.csv" in done.stderr


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "trec"])
def test_programs_read_standard_output(cli, database, file_format):
    run_id = add_reference_run(database)

    out = cli("results", str(run_id), "--format", file_format, "--limit", "3").stdout

    rows = {
        "jsonl": lambda: [json.loads(line)["item"] for line in out.splitlines()],
        "csv": lambda: [row["item"] for row in csv.DictReader(io.StringIO(out))],
        "trec": lambda: [line.split()[2] for line in out.splitlines()],
    }
    assert rows[file_format]() == ["i3", "i2", "i1"]


def test_rankings_of_a_run_that_goes_on_are_marked_as_such(cli, database):
    run_id = add_reference_run(database)

    assert "rankings so far" in cli("results", str(run_id)).stderr


def test_calibration_prints_its_figures(cli, database):
    run_id = add_reference_run(database)

    facts = json.loads(cli("calibration", str(run_id), "--json").stdout)
    plot = cli("calibration", str(run_id)).stdout

    assert sum(facts["score_histogram"]) == facts["n_scored"] == 10
    assert len(facts["score_edges"]) == len(facts["score_histogram"]) + 1
    assert facts["tie_rate"] == 0.2
    assert facts["firing_rate_by_layer"] == {"5": 0.1, "7": 0.1}
    assert facts["winners_changed_by_tie_break"] == 1
    assert [stage["stage"] for stage in facts["stages"]] == ["search", "score", "rank"]
    assert "Tied: 20.0% of the pairs" in plot
    assert "█" in plot


def test_winners_that_the_enhancement_changed_are_reported_with_the_sample_they_were_counted_in(
    cli, database
):
    run_id = add_reference_run(database)
    unknown = cli("calibration", str(run_id)).stdout
    _change_statistics(database, {"n_compared": 2, "winners_changed_by_enhancement": 1})
    sampled = cli("calibration", str(run_id)).stdout
    facts = json.loads(cli("calibration", str(run_id), "--json").stdout)
    _change_statistics(database, {"n_compared": 0, "fired_by_layer": {}})
    never = cli("calibration", str(run_id)).stdout

    assert "by the tie-break: 1 of all 4 queries" in unknown
    assert "by the enhancement: unknown, no query was also scored without it" in unknown
    reported = "by the enhancement: 2 of the 4 queries also scored without it, a sample of all 4 "
    assert reported in sampled
    assert (facts["n_compared"], facts["winners_changed_by_enhancement"]) == (4, 2)
    assert "by the enhancement: none, it fired on no pair" in never


def _change_statistics(database, facts):
    """In both jobs of the reference run."""
    with database.begin() as connection:
        connection.execute(
            text("UPDATE calibration SET statistics = statistics || CAST(:facts AS jsonb)"),
            {"facts": json.dumps(facts)},
        )


def test_calibration_of_a_run_without_rankings_says_so(cli, database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM calibration"))

    assert "No query is ranked yet" in cli("calibration", str(run_id)).stdout


def test_evaluate_prints_both_orders(cli, database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.DONE)

    facts = json.loads(cli("evaluate", str(run_id), "--json", exit_code=7).stdout)
    table = cli("evaluate", str(run_id), exit_code=7).stdout

    assert facts["n_queries"] == 4
    assert (facts["coarse"]["recall@1"], facts["fine"]["recall@1"]) == (0.25, 0.375)
    assert ["recall@1", "0.2500", "0.3750", "+0.1250"] in [
        line.split() for line in table.splitlines()
    ]


def test_a_report_is_written(cli, database, tmp_path):
    run_id = add_reference_run(database)

    cli("report", str(run_id), "--output", str(tmp_path / "run.html"), "--queries", "2")

    assert (tmp_path / "run.html").read_text().count("<section>") == 2


def test_runs_are_listed_and_shown(cli, database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        reported = {TallyName.PAIRS: 9, TallyName.PREFIXES: 4, TallyName.PICTURES: 1234}
        write_tallies(connection, run_id, reported)

    listed = json.loads(cli("run", "list", "--json").stdout)
    shown = json.loads(cli("run", "show", str(run_id), "--json").stdout)
    text_shown = cli("run", "show", str(run_id)).stdout

    assert [row["run"]["id"] for row in listed] == [run_id]
    assert shown["pairs_per_group"] == 2.5
    assert shown["scorer"]["fingerprint"] == SCORER
    assert shown["pairs_per_prefix"] == 2.25
    assert "reuse factor" in text_shown
    assert "pairs per prefix forward: got 2.25 (planned 2.50)" in text_shown
    assert "1,234 by the vision tower" in text_shown
    assert "retllm of questions over things by hf:test" in cli("run", "list").stdout


def test_a_run_is_paused_resumed_and_cancelled(cli, database):
    run_id = str(add_index_run(database))

    assert "paused" in cli("run", "pause", run_id).stdout
    cli("run", "pause", run_id, exit_code=4)
    assert "running" in cli("run", "resume", run_id).stdout
    assert "cancelled" in cli("run", "cancel", run_id).stdout
    assert "cannot become running" in cli("run", "resume", run_id, exit_code=4).stderr


@pytest.mark.parametrize(("state", "exit_code"), [("done", 0), ("failed", 1), ("cancelled", 1)])
def test_watching_ends_with_the_run(cli, database, state, exit_code):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState(state))

    watched = cli("run", "watch", str(run_id), exit_code=exit_code)
    facts = json.loads(cli("run", "watch", str(run_id), "--json", exit_code=exit_code).stdout)

    assert f"run {run_id} is {state}" in watched.stderr
    assert facts["run"]["state"] == state


def test_failures_are_listed_with_their_remedy(cli, database):
    run_id = add_reference_run(database)
    assert "nothing went wrong" in cli("run", "failures", str(run_id)).stdout
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message) "
                "VALUES (:run, 'score', 'pair', 'q1 → i1', 'image_missing', 'put it back')"
            ),
            {"run": run_id},
        )

    assert "put it back" in cli("run", "failures", str(run_id)).stdout
    (failure,) = json.loads(cli("run", "failures", str(run_id), "--json").stdout)
    assert (failure["subject_id"], failure["reason"]) == ("q1 → i1", "image_missing")
    assert "image_missing" in cli("run", "show", str(run_id)).stdout
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.DONE)
    assert "1 failed (1 image_missing)" in cli("run", "watch", str(run_id), exit_code=7).stderr
    watched = json.loads(cli("run", "watch", str(run_id), "--json", exit_code=7).stdout)
    assert (watched["state"], watched["failed"]) == ("done", 1)


def test_workers_are_listed(cli, database):
    assert "no worker" in cli("worker", "list").stdout
    add_reference_run(database)
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO worker "
                "(id, host, pid, device, stages, model, run_id, job_id, units_per_s) "
                "VALUES ('h:7:x', 'h', 7, 'cuda:0', 'score', :model, 3, 8, 12.5)"
            ),
            {"model": SCORER},
        )

    table = cli("worker", "list").stdout
    (worker,) = json.loads(cli("worker", "list", "--json").stdout)

    assert ["h:7", "alive", "cuda:0", "score", "hf:test", "8", "of", "run", "3", "12.5/s"] in [
        line.split()[:10] for line in table.splitlines()
    ]
    assert (worker["model"], worker["model_fingerprint"]) == ("hf:test", SCORER)
    assert (worker["run_id"], worker["job_id"]) == (3, 8)
    assert (worker["device"], worker["state"], worker["units_per_s"]) == ("cuda:0", "alive", 12.5)


def test_a_missing_run_ends_with_its_exit_code(cli):
    for command in (["results"], ["calibration"], ["evaluate"], ["run", "show"], ["run", "watch"]):
        assert "there is no run 5" in cli(*command, "5", exit_code=3).stderr
