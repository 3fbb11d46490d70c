"""Tallies of jobs are written with results, summed in the background, read at any time."""

import pytest
from sqlalchemy import text

from nightshift.schema.errors import LeaseLostError
from nightshift.schema.states import TallyName
from nightshift.stores.index.indexes import list_indexes
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.counters import compact_tallies, tallies_of_run, write_tallies
from tests.stores.ledger_helpers import add_index_run, expire, make_due

MEASURED = {TallyName.VECTORS: 4, TallyName.TOP_SHARE: 1.5}


@pytest.fixture
def ledger(database):
    return Ledger(database, worker_id="w", lease_s=30, max_attempts=3)


def _do(ledger, run_id, job_id, measured=MEASURED):
    with ledger.finish(ledger.claim(run_id, job_id)) as connection:
        write_tallies(connection, run_id, measured)


def _read(database, run_id):
    with database.begin() as connection:
        return tallies_of_run(connection, run_id)


def _compact(database):
    with database.begin() as connection:
        return compact_tallies(connection)


def test_sums_are_the_same_before_between_and_after_compactions(database, ledger):
    run_id = add_index_run(database, n_jobs=3)
    other = add_index_run(database, n_jobs=1)
    _do(ledger, other, 1, {TallyName.VECTORS: 100})
    assert _read(database, run_id) == {}

    _do(ledger, run_id, 1)
    assert _read(database, run_id) == MEASURED
    assert _compact(database) == 3
    assert _read(database, run_id) == MEASURED
    for job_id in (2, 3):
        _do(ledger, run_id, job_id, {TallyName.VECTORS: 2, TallyName.TOP_SHARE: 0.25})

    expected = {TallyName.VECTORS: 8, TallyName.TOP_SHARE: 2}
    assert _read(database, run_id) == expected
    assert _compact(database) == 4
    assert _compact(database) == 0
    assert _read(database, run_id) == expected


def test_a_job_that_two_workers_did_is_counted_once(database, ledger):
    run_id = add_index_run(database)
    late = ledger.claim(run_id, 1)
    expire(database, run_id, 1)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE job SET state = 'queued', lease_until = NULL WHERE run_id = :r AND id = 1"
            ),
            {"r": run_id},
        )
    make_due(database, run_id)
    _do(ledger, run_id, 1)

    with pytest.raises(LeaseLostError), ledger.finish(late) as connection:
        write_tallies(connection, run_id, MEASURED)

    assert _read(database, run_id) == MEASURED


def test_a_run_that_was_deleted_leaves_no_tallies(database, ledger):
    run_id = add_index_run(database, n_jobs=2)
    _do(ledger, run_id, 1)
    _compact(database)
    _do(ledger, run_id, 2)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM run WHERE id = :r"), {"r": run_id})

    _compact(database)

    assert _read(database, run_id) == {}


def test_an_index_says_how_much_of_its_vectors_the_largest_dimensions_carry(database, ledger):
    run_id = add_index_run(database)
    unmeasured = add_index_run(database, n_jobs=1)
    _do(ledger, run_id, 1)
    _do(ledger, run_id, 2, {TallyName.VECTORS: 1, TallyName.TOP_SHARE: 1.0})
    _compact(database)
    # A job all of whose items failed has no vector.
    _do(ledger, run_id, 3, {TallyName.VECTORS: 0, TallyName.TOP_SHARE: 0.0})
    _do(ledger, unmeasured, 1, {TallyName.VECTORS: 0, TallyName.TOP_SHARE: 0.0})

    with database.begin() as connection:
        shares = [index.top_share for index in list_indexes(connection)]

    assert shares == [None, 2.5 / 5]
