"""Progress, throughput, failures and lineage are read off the ledger."""

import pytest
from sqlalchemy import text

from nightshift.results.runs import list_failures, list_progress, progress, show_run
from nightshift.results.workers import list_workers
from nightshift.schema.errors import NotFoundError
from nightshift.schema.states import RunState, Stage, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger import runs, workers
from nightshift.stores.ledger.claims import Ledger
from tests.results.ranked import EMBEDDER, SCORER, add_reference_run
from tests.stores.ledger_helpers import add_index_run


def work(database, run_id, *job_ids, n_failed=0):
    ledger = Ledger(database, worker_id="w1", lease_s=60, max_attempts=3)
    for job_id in job_ids:
        claim = ledger.claim(run_id, job_id)
        with ledger.finish(claim, n_failed=n_failed):
            pass


def test_units_count_as_done_when_their_job_is(database):
    run_id = add_index_run(database, n_jobs=3, per_job=4)
    work(database, run_id, 1, n_failed=1)

    (embed,) = progress(database, run_id).stages

    assert (embed.stage, embed.state) == (Stage.EMBED, "running")
    assert (embed.jobs, embed.jobs_done, embed.jobs_running) == (3, 1, 0)
    assert (embed.units, embed.units_done, embed.units_failed) == (12, 4, 1)


def test_time_left_is_what_is_left_at_the_present_rate(database):
    run_id = add_index_run(database, n_jobs=4, per_job=4)
    work(database, run_id, 1)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE job SET started_at = clock_timestamp() - interval '8 s', "
                "finished_at = clock_timestamp() - interval '4 s' WHERE state = 'done'"
            )
        )

    (embed,) = progress(database, run_id).stages

    assert embed.units_per_s == pytest.approx(4 / 8, rel=0.2)
    assert embed.left_s == pytest.approx(12 / embed.units_per_s)


def test_throughput_is_that_of_the_last_minute_while_a_stage_runs(database):
    run_id = add_index_run(database, n_jobs=3, per_job=4)
    work(database, run_id, 1, 2)
    with database.begin() as connection:
        for job_id, minutes in ((1, 30), (2, 0)):
            connection.execute(
                text(
                    "UPDATE job SET started_at = clock_timestamp() - make_interval(mins => :m + 1),"
                    " finished_at = clock_timestamp() - make_interval(mins => :m) WHERE id = :job"
                ),
                {"m": minutes, "job": job_id},
            )

    (embed,) = progress(database, run_id).stages

    assert embed.units_per_s == pytest.approx(4 / 60, rel=0.05)


def test_a_stage_that_nobody_works_on_has_no_rate(database):
    (embed,) = progress(database, add_index_run(database)).stages

    assert embed.units_per_s is None
    assert embed.left_s is None
    assert embed.started_at is None


def test_a_paused_run_has_no_time_left(database):
    run_id = add_index_run(database, n_jobs=3)
    work(database, run_id, 1)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.PAUSED)

    (embed,) = progress(database, run_id).stages

    assert embed.left_s is None


def test_a_finished_stage_keeps_its_own_rate(database):
    run_id = add_index_run(database, n_jobs=2, per_job=4)
    work(database, run_id, 1, 2)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE job SET started_at = '2026-01-01 00:00:00', finished_at = "
                "'2026-01-01 00:00:10'"
            )
        )

    (embed,) = progress(database, run_id).stages

    assert (embed.state, embed.units_per_s) == ("done", 0.8)


def test_the_stages_of_a_rerank_run_come_in_their_order(database):
    run_id = add_reference_run(database)

    stages = progress(database, run_id).stages

    assert [(stage.stage, stage.state) for stage in stages] == [
        (Stage.SEARCH, "done"),
        (Stage.SCORE, "done"),
        (Stage.RANK, "done"),
    ]
    assert (stages[2].units, stages[2].units_done) == (4, 4)


def test_the_newest_run_is_listed_first(database):
    older, newer = add_index_run(database), add_reference_run(database)

    assert [entry.run.id for entry in list_progress(database, 9)] == [newer, older]
    assert [entry.run.id for entry in list_progress(database, 1)] == [newer]


def test_a_run_explains_its_failures_and_its_lineage(database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        for subject, fatal in (("q1 → i1", True), ("q1 → i2", True), ("q2 → i1", False)):
            record_failure(
                connection,
                run_id=run_id,
                stage="score",
                subject_kind=SubjectKind.PAIR,
                subject_id=subject,
                reason="image_missing" if fatal else "text_cut",
                message="put it back",
                fatal=fatal,
            )

    details = show_run(database, run_id)

    assert [(failure.reason, failure.fatal, failure.count) for failure in details.failures] == [
        ("image_missing", True, 2),
        ("text_cut", False, 1),
    ]
    assert details.failures[0].example == "put it back"
    assert details.embedder.fingerprint == EMBEDDER
    assert details.scorer is not None
    assert (details.scorer.fingerprint, details.scorer.card) == (SCORER, {"weights": "abc"})
    assert details.pairs_per_group == 2.5
    assert [failure.subject_id for failure in list_failures(database, run_id)] == [
        "q1 → i1",
        "q1 → i2",
        "q2 → i1",
    ]


def test_a_query_that_could_not_be_read_is_a_failure_of_its_runs(database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO failure (query_set_id, stage, subject_kind, subject_id, reason, "
                "message) SELECT query_set_id, 'import', 'line', '7', 'malformed', 'mend it' "
                "FROM run WHERE id = :run"
            ),
            {"run": run_id},
        )

    assert [failure.reason for failure in list_failures(database, run_id)] == ["malformed"]


def test_an_unknown_run_is_named(database):
    for read in (progress, show_run, list_failures):
        with pytest.raises(NotFoundError, match="no run 7"):
            read(database, 7)


def test_workers_are_alive_silent_or_stopped(database):
    with database.begin() as connection:
        for name in ("working", "silent", "stopped"):
            workers.register(
                connection, worker_id=name, host="h", pid=1, device="cpu", stages="score"
            )
        workers.report(
            connection,
            "working",
            {
                "device": "cuda:0",
                "model": SCORER,
                "loading": None,
                "run_id": 3,
                "job_id": 8,
                "units_per_s": 12.5,
            },
        )
        workers.retire(connection, "stopped")
        connection.execute(
            text("UPDATE worker SET seen_at = seen_at - interval '1 min' WHERE id = 'silent'")
        )

    results = list_workers(database)

    assert [(result.id, result.state) for result in results] == [
        ("working", "alive"),
        ("silent", "silent"),
    ]
    assert (results[0].run_id, results[0].job_id, results[0].units_per_s) == (3, 8, 12.5)
    assert (results[0].device, results[0].model_fingerprint) == ("cuda:0", SCORER)
    assert results[1].seen_s > 59
    assert len(list_workers(database, include_stopped=True)) == 3
