"""Pruning keeps every score that a run uses, and frees the room of the others."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.plans import RerankPlan
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.ledger.run_pruning import prune_runs
from nightshift.stores.results import score_pruning
from nightshift.stores.results.score_pruning import prune_scores
from tests.results.ranked import SCORER, add_reference_run

PAST = date(2026, 1, 1)


@pytest.fixture
def run_id(database):
    """A done run that uses every third of 3,000 scores of a past month."""
    run_id = add_reference_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.DONE)
        connection.execute(text("DELETE FROM score"))
        connection.execute(text("UPDATE candidate SET score_id = NULL"))
    add_scores(database, PAST, 3000)
    use(database, run_id)
    return run_id


def add_scores(database, month, count):
    with database.begin() as connection:
        values = {"month": month, "n": count, "scorer": SCORER}
        connection.execute(
            text(
                "SELECT make_score_partition(number, :month) FROM model WHERE fingerprint = :scorer"
            ),
            values,
        )
        connection.execute(
            text("""
            INSERT INTO score (scorer, month, pair_key, margin, logit_positive, logit_negative,
                logsumexp, entropy, fired, run_id)
            SELECT number, :month, sha256(int4send(n) || CAST(CAST(:month AS text) AS bytea)),
                n, 1, 0, 2, 0.5, false, 1
            FROM model, generate_series(1, :n) AS n WHERE fingerprint = :scorer
            """),
            values,
        )


def use(database, run_id):
    """Let candidates of a run name every third score."""
    with database.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO candidate (run_id, query_id, item_id, content_id, coarse_rank, coarse_score,
                score_id)
            SELECT :run, 1000 + id / 1000, id, 1, row_number() OVER (
                PARTITION BY id / 1000 ORDER BY id), 0.5, id
            FROM score WHERE CAST(margin AS integer) % 3 = 0
            """),
            {"run": run_id},
        )


def scores(database):
    with database.begin() as connection:
        rows = connection.execute(text("SELECT id, month, margin FROM score ORDER BY id"))
        return [tuple(row) for row in rows]


def used(database):
    with database.begin() as connection:
        rows = connection.execute(
            text("SELECT s.id, s.month, s.margin FROM score s WHERE EXISTS (SELECT FROM candidate c"
                 " WHERE c.score_id = s.id) ORDER BY s.id")
        )  # fmt: skip
        return [tuple(row) for row in rows]


def tables(database):
    with database.begin() as connection:
        return set(
            connection.execute(
                text(r"SELECT relname FROM pg_class WHERE relname ~ '^score_s\d+_' "
                     "AND relkind = 'r'")
            ).scalars()
        )  # fmt: skip


def counts(report):
    return [(each.month, each.unused, each.kept) for each in report.scores]


def test_scores_that_a_run_uses_stay_as_they_are_and_the_others_go(database, run_id, monkeypatch):
    monkeypatch.setattr(score_pruning, "_SCORES", 700)
    kept, before = used(database), tables(database)

    report = prune_scores(database)

    assert counts(report) == [(PAST, 2000, 1000)]
    assert report.bytes > 100_000
    assert scores(database) == kept
    assert tables(database) == before
    assert prune_scores(database).scores == []
    add_scores(database, date(2026, 2, 1), 5)  # partitions of other months are made as before


def test_the_room_is_freed_and_new_scores_go_into_the_rewritten_partition(database, run_id):
    size = text(
        "SELECT CAST(sum(pg_total_relation_size(relid)) AS bigint) FROM pg_partition_tree('score')"
    )
    with database.begin() as connection:
        before = connection.execute(size).scalar_one()

    prune_scores(database)

    with database.begin() as connection:
        assert connection.execute(size).scalar_one() < before * 0.6
        connection.execute(text("DELETE FROM score WHERE CAST(margin AS integer) = 3"))
    with database.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO score (scorer, month, pair_key, margin, written, fired, run_id)
            SELECT number, :month, 'new', 1, 'yes', false, 1 FROM model WHERE fingerprint = :scorer
            """),
            {"month": PAST, "scorer": SCORER},
        )


def test_a_month_without_any_used_score_is_dropped(database, run_id):
    prune_runs(database, keep=0)

    report = prune_scores(database)

    assert (PAST, 3000, 0) in counts(report)
    assert scores(database) == []
    assert not any(name.endswith("_202601") for name in tables(database))


def test_a_dry_run_deletes_nothing(database, run_id):
    assert counts(prune_scores(database, dry_run=True)) == [(PAST, 2000, 1000)]
    assert len(scores(database)) == 3000


def plan_run(database, run_id, end=None):
    with database.begin() as connection:
        like = runs.get_run(connection, run_id)
        made = create_rerank_run(
            connection, stage=Stage.SEARCH, catalog_id=like.catalog_id, revision=like.revision,
            index_id=like.index_id, query_set_id=like.query_set_id, scorer=like.scorer,
            scorer_fingerprint=SCORER, params=like.params, plan=RerankPlan(),
        )  # fmt: skip
        if end is not None:
            runs.set_run_state(connection, made, end)


def test_a_scorer_stays_whose_runs_have_not_ended(database, run_id):
    plan_run(database, run_id)

    report = prune_scores(database)

    assert report.scores == []
    assert "has not ended and may use them" in report.skipped[0]
    assert len(scores(database)) == 3000


@pytest.mark.parametrize("end", [None, RunState.DONE])
def test_a_run_that_is_planned_while_scores_are_copied_stops_the_pruning(
    database, run_id, monkeypatch, end
):
    slices = score_pruning._slices

    def plan_meanwhile(connection, table, step):
        yield from slices(connection, table, step)
        if table.startswith("score_s"):
            plan_run(database, run_id, end)

    monkeypatch.setattr(score_pruning, "_slices", plan_meanwhile)

    report = prune_scores(database)

    assert report.scores == []
    assert "a run has begun or ended meanwhile" in report.skipped[0]
    assert len(scores(database)) == 3000
    assert not any(name.endswith("_kept") for name in tables(database))


def test_the_partition_of_a_run_that_may_be_taken_up_again_stays_although_it_is_empty(
    database, run_id
):
    with database.begin() as connection:
        at = datetime(2026, 1, 5, tzinfo=UTC)
        connection.execute(text("UPDATE run SET created_at = :at"), {"at": at})
        connection.execute(text("DELETE FROM candidate"))

    prune_scores(database)

    assert scores(database) == []
    assert any(name.endswith("_202601") for name in tables(database))


_PRUNE = """
import sys
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import score_pruning
score_pruning._SCORES = 500
slices = score_pruning._slices
def shown(*args):
    for each in slices(*args):
        yield each
        print(each, flush=True)
score_pruning._slices = shown
with Database(sys.argv[1]) as database:
    score_pruning.prune_scores(database)
"""


def test_a_pruning_that_is_killed_leaves_the_store_as_it_was(database, database_url, run_id):
    kept = used(database)
    for copied in (1, 4):
        pruning = subprocess.Popen(
            [sys.executable, "-c", _PRUNE, database_url], stdout=subprocess.PIPE, text=True
        )
        for _ in range(copied):
            pruning.stdout.readline()
        os.kill(pruning.pid, signal.SIGKILL)
        pruning.wait()
        assert used(database) == kept
        assert len(scores(database)) in (1000, 3000)

    prune_scores(database)

    assert scores(database) == kept
    assert not any(name.endswith("_kept") for name in tables(database))


def test_the_command_says_how_many_scores_go(database_url, run_id):
    cli = CliRunner(env={"NIGHTSHIFT_DATABASE_URL": database_url})

    shown = cli.invoke(main, ["score", "prune", "--dry-run"])
    done = cli.invoke(main, ["score", "prune", "--json"])

    assert "2,000 scores," in shown.stdout
    (facts,) = json.loads(done.stdout)["scores"]
    assert (facts["month"], facts["unused"], facts["kept"]) == ("2026-01-01", 2000, 1000)
