"""`retry-failed`: what failed is done once more, what was done is not, and the books balance."""

import pytest
from sqlalchemy import text

from nightshift.producers.retry import retry_failed
from nightshift.results.runs import progress
from nightshift.results.verify import verify
from nightshift.schema.errors import ConflictError
from nightshift.schema.messages import BlockPayload
from nightshift.schema.states import RunState, Stage, SubjectKind
from nightshift.stores.failures import record_failure, record_notice_of_run
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.jobs import add_jobs
from tests.results.ranked import add_reference_run
from tests.stores.ledger_helpers import add_index_run, make_due


@pytest.fixture
def ledger(database):
    return Ledger(database, worker_id="w", lease_s=60, max_attempts=1)


def _state(database, run_id, state):
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, state)


def _queued(database, run_id):
    with database.begin() as connection:
        rows = connection.execute(
            text("SELECT id, payload FROM job WHERE run_id = :r AND state = 'queued' ORDER BY id"),
            {"r": run_id},
        )
        return {row.id: row.payload["ids"] for row in rows}


def _embed(database, ledger, run_id, job_id, bad=()):
    """Do a job as a worker would; `bad` items get a failure of their own."""
    claim = ledger.claim(run_id, job_id)
    good = [failure for failure in claim.payload.ids if failure not in bad]
    failed = [failure for failure in claim.payload.ids if failure in bad]
    with ledger.finish(claim, n_failed=len(failed)) as connection:
        index_id = runs.get_run(connection, run_id).index_id
        write_embeddings(
            connection,
            index_id=index_id,
            run_id=run_id,
            keys=[(failure, f"{index_id:x}{failure:060x}") for failure in good],
        )
        for failure in failed:
            name = connection.execute(
                text("SELECT external_id FROM item WHERE id = :i"), {"i": failure}
            ).scalar_one()
            record_failure(
                connection,
                run_id=run_id,
                stage="embed",
                subject_kind=SubjectKind.ITEM,
                subject_id=name,
                reason="image_missing",
                message="gone",
            )


def _items(database, run_id, job_id):
    return _queued(database, run_id)[job_id]


def test_only_the_failed_items_are_queued_again_and_the_receipt_balances(database, ledger):
    run_id = add_index_run(database, n_jobs=2, per_job=3)
    first = _items(database, run_id, 1)
    _embed(database, ledger, run_id, 1, bad=first[:2])
    _embed(database, ledger, run_id, 2)
    _state(database, run_id, RunState.DONE)

    retried = retry_failed(database, run_id)

    assert (retried.stage, retried.units) == (Stage.EMBED, {Stage.EMBED: 2})
    assert _queued(database, run_id) == {3: first[:2]}
    (embed,) = progress(database, run_id).stages
    assert (embed.units, embed.units_done, embed.units_failed) == (6, 4, 0)

    _embed(database, ledger, run_id, 3, bad=first[:1])
    _state(database, run_id, RunState.DONE)
    receipt = verify(database, run_id)
    (items,) = receipt.balances
    assert (items.expected, items.done, items.failed, items.missing) == (6, 5, 1, 0)
    assert receipt.complete


def test_an_item_that_failed_alone_gets_all_its_attempts_again(database):
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=2)
    run_id = add_index_run(database, n_jobs=1, per_job=1)
    for _ in range(2):
        make_due(database, run_id)
        ledger.fail_attempt(ledger.claim(run_id, 1), "poison", "cannot be embedded")
    _state(database, run_id, RunState.DONE)

    retry_failed(database, run_id)

    (job_id,) = _queued(database, run_id)
    assert ledger.claim(run_id, job_id).attempt == 1
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM failure")).scalar_one() == 0


def test_a_second_retry_finds_nothing_left_to_do(database, ledger):
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    _embed(database, ledger, run_id, 1, bad=_items(database, run_id, 1)[:1])
    _state(database, run_id, RunState.DONE)
    retry_failed(database, run_id)
    (job_id,) = _queued(database, run_id)
    _embed(database, ledger, run_id, job_id)
    _state(database, run_id, RunState.DONE)

    assert retry_failed(database, run_id).stage is None
    assert progress(database, run_id).run.state is RunState.DONE


def test_a_run_that_failed_as_a_whole_goes_on_where_it_stood(database, ledger):
    run_id = add_index_run(database, n_jobs=2, per_job=2)
    _embed(database, ledger, run_id, 1)
    claim = ledger.claim(run_id, 2)
    with database.begin() as connection:
        runs.fail_run(connection, run_id, Stage.EMBED, "model_error", "no such weights")

    retried = retry_failed(database, run_id)

    assert retried.units == {Stage.EMBED: 2}
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM failure")).scalar_one() == 0
    second_claim = ledger.claim(run_id, claim.job_id)
    assert (second_claim.attempt, second_claim.token > claim.token) == (1, True)


def test_what_every_job_says_is_kept_once_and_outlives_the_failure_of_the_run(database):
    run_id = add_index_run(database)
    for message in ("none is packed", "none is packed, says another job"):
        with database.begin() as connection:
            record_notice_of_run(
                connection, run_id, stage="embed", about="all", reason="slow", message=message
            )
    with database.begin() as connection:
        runs.fail_run(connection, run_id, Stage.EMBED, "model_error", "no such weights")

    retry_failed(database, run_id)

    with database.begin() as connection:
        rows = connection.execute(text("SELECT subject_id, reason, message, fatal FROM failure"))
        assert list(map(tuple, rows)) == [("all", "slow", "none is packed", False)]


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.PAUSED, RunState.CANCELLED])
def test_a_run_that_has_not_ended_or_was_cancelled_is_refused(database, state):
    run_id = add_index_run(database)
    if state is not RunState.RUNNING:
        _state(database, run_id, state)

    with pytest.raises(ConflictError, match=f"run {run_id}"):
        retry_failed(database, run_id)


def test_a_query_that_failed_is_searched_again_and_scoring_is_planned_from_there(database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        ids = connection.execute(text("SELECT array_agg(id ORDER BY id) FROM query")).scalar_one()
        job = BlockPayload(ids=ids)
        add_jobs(connection, run_id, Stage.SEARCH, "search.x", [job])
        connection.execute(
            text(
                "UPDATE job SET state = 'done', finished_at = now(), n_failed = 1 "
                "WHERE stage = 'search'"
            )
        )
        record_failure(
            connection,
            run_id=run_id,
            stage="search",
            subject_kind=SubjectKind.QUERY,
            subject_id="q5",
            reason="image_missing",
            message="gone",
        )
        failed = connection.execute(text("SELECT id FROM query WHERE external_id = 'q5'"))
        failed = failed.scalar_one()
    _state(database, run_id, RunState.DONE)

    retried = retry_failed(database, run_id)

    assert (retried.stage, retried.units) == (Stage.SEARCH, {Stage.SEARCH: 1})
    assert list(_queued(database, run_id).values()) == [[failed]]
    current = progress(database, run_id)
    assert current.run.stage is Stage.SEARCH
    assert current.stages[0].units == len(ids)
