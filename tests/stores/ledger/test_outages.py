"""A service that is in trouble costs a job nothing, unless the job itself is the trouble."""

import grpc
import pytest
from pymilvus import MilvusException
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.stack import Stack
from nightshift.stores.index.milvus.connection import Connection
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.postgres.database import Database, copy_rows
from tests.stores.ledger_helpers import add_index_run, job_row, make_due

_OUTAGES = {
    "08006": "connection_failure",
    "53000": "insufficient_resources",
    "53100": "disk_full",
    "53200": "out_of_memory",
    "53300": "too_many_connections",
    "53400": "configuration_limit_exceeded",
    "57P01": "admin_shutdown",
    "57P03": "cannot_connect_now",
    "58030": "io_error",
    "58P01": "undefined_file",
    "25006": "read_only_sql_transaction",
    "40P01": "deadlock_detected",
}


def _raise(code: str) -> str:
    return f"DO $$ BEGIN RAISE 'the reason' USING ERRCODE = '{code}'; END $$"


@pytest.mark.parametrize("code", _OUTAGES, ids=_OUTAGES.values())
def test_want_of_something_that_postgres_needs_is_an_outage(database: Database, code: str):
    with (
        pytest.raises(ServiceUnavailableError, match="the reason") as caught,
        database.begin() as connection,
    ):
        connection.execute(text(_raise(code)))
    with (
        pytest.raises(ServiceUnavailableError, match="the reason"),
        database.begin() as connection,
    ):
        connection.connection.cursor().execute(_raise(code))  # as COPY runs
    assert caught.value.service == "postgres"
    with database.begin() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_cancelled_statement_is_no_outage(database: Database):
    with (
        pytest.raises(NightshiftError, match="cancelled") as caught,
        database.begin() as connection,
    ):
        connection.execute(text("SET LOCAL statement_timeout = 50"))
        connection.execute(text("SELECT pg_sleep(20)"))
    assert not isinstance(caught.value, ServiceUnavailableError)


@pytest.mark.parametrize("code", ["22003", "23505", "42601", "XX001"])
def test_what_is_wrong_with_a_statement_is_no_outage(database: Database, code: str):
    with pytest.raises(DBAPIError), database.begin() as connection:
        connection.execute(text(_raise(code)))


def test_a_disk_that_is_full_during_copy_is_an_outage(database: Database):
    with pytest.raises(ServiceUnavailableError, match="no room"), database.begin() as connection:
        connection.execute(text("CREATE TEMP TABLE small (n int)"))
        connection.execute(
            text(
                "CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE 'no room' USING ERRCODE = 'disk_full'; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON small FOR EACH ROW "
                "EXECUTE FUNCTION pg_temp.refuse()"
            )
        )
        copy_rows(connection, "small", ("n",), [(1,)])


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, worker_id="w", lease_s=60, max_attempts=2)


def _meets_an_outage(ledger: Ledger, run_id: int, job_id: int):
    make_due(ledger.database, run_id)
    claim = ledger.claim(run_id, job_id)
    assert claim is not None
    ledger.hand_back_from_outage(claim, "the disk is full")
    return job_row(ledger.database, run_id, job_id)


def _is_done(ledger: Ledger, run_id: int, job_id: int) -> None:
    claim = ledger.claim(run_id, job_id)
    assert claim is not None
    with ledger.finish(claim):
        pass


def test_an_outage_costs_no_attempt_however_long_it_lasts(database: Database, ledger: Ledger):
    run_id = add_index_run(database, n_jobs=2, per_job=1)
    for _ in range(5):
        for job_id in (1, 2):
            row = _meets_an_outage(ledger, run_id, job_id)
            assert (row.state, row.attempt, row.error) == ("queued", 0, "the disk is full")


def test_what_others_finished_before_does_not_count_against_a_job(
    database: Database, ledger: Ledger
):
    run_id = add_index_run(database, n_jobs=3, per_job=1)
    _is_done(ledger, run_id, 1)
    for _ in range(4):
        assert _meets_an_outage(ledger, run_id, 2).attempt == 0


def test_a_job_that_alone_meets_an_outage_ends_with_a_failed_item(
    database: Database, ledger: Ledger
):
    run_id = add_index_run(database, n_jobs=2, per_job=2)
    assert _meets_an_outage(ledger, run_id, 1).attempt == 0
    _is_done(ledger, run_id, 2)

    assert _meets_an_outage(ledger, run_id, 1).attempt == 1
    assert _meets_an_outage(ledger, run_id, 1).state == "split"
    _is_done(ledger, run_id, 3)
    assert _meets_an_outage(ledger, run_id, 4).attempt == 1
    assert _meets_an_outage(ledger, run_id, 4).state == "failed"

    with database.begin() as connection:
        failure = connection.execute(text("SELECT reason, message FROM failure")).one()
    assert failure == ("service_unavailable", "the disk is full")


def test_a_stage_with_one_job_is_cut_in_two_so_that_one_half_shows_whether_the_service_works(
    database: Database, ledger: Ledger
):
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    assert _meets_an_outage(ledger, run_id, 1).state == "queued"
    with database.begin() as connection:
        connection.execute(text("UPDATE job SET outage_since = outage_since - interval '1 min'"))

    assert _meets_an_outage(ledger, run_id, 1).state == "split"
    assert _meets_an_outage(ledger, run_id, 2).state == "queued"
    assert _meets_an_outage(ledger, run_id, 3).attempt == 0, "neither half was done"
    make_due(database, run_id)
    _is_done(ledger, run_id, 2)
    assert _meets_an_outage(ledger, run_id, 3).attempt == 1


def test_a_pause_grows_with_the_time_that_an_outage_lasts(database: Database, ledger: Ledger):
    run_id = add_index_run(database, n_jobs=2, per_job=1)
    _meets_an_outage(ledger, run_id, 1)
    with database.begin() as connection:
        connection.execute(text("UPDATE job SET outage_since = outage_since - interval '1 hour'"))
    _meets_an_outage(ledger, run_id, 1)
    with database.begin() as connection:
        waits = connection.execute(
            text("SELECT not_before - clock_timestamp() > interval '5 s' FROM job WHERE id = 1")
        )
        assert waits.scalar_one()


def test_a_stale_claim_gives_nothing_back(database: Database, ledger: Ledger):
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    claim = ledger.claim(run_id, 1)
    assert claim is not None
    ledger.hand_back(claim, "stopping")
    make_due(database, run_id)
    second_claim = ledger.claim(run_id, 1)
    assert second_claim is not None

    ledger.hand_back_from_outage(claim, "late")

    assert job_row(database, run_id, 1).state == "running"


class _RpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "the reason"


_MILVUS_OUTAGES = {
    "resources": _RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED),
    "away": _RpcError(grpc.StatusCode.UNAVAILABLE),
    "slow": _RpcError(grpc.StatusCode.DEADLINE_EXCEEDED),
    "stream cut": _RpcError(grpc.StatusCode.INTERNAL),
    "not ready": MilvusException(1, "service not ready[...]: the reason"),
    "memory": MilvusException(3, "the reason"),
    "disk": MilvusException(7, "the reason"),
    "rate": MilvusException(8, "the reason"),
    "quota": MilvusException(9, "the reason"),
    "full disk below Milvus Lite": MilvusException(1, "[Errno 28] No space left: the reason"),
    "said to be passing": MilvusException(2200, "the reason", retriable=True),
}


@pytest.mark.parametrize("error", _MILVUS_OUTAGES.values(), ids=_MILVUS_OUTAGES.keys())
def test_want_of_something_that_milvus_needs_is_an_outage(stack: Stack, error: Exception):
    with pytest.raises(ServiceUnavailableError, match="the reason") as caught:
        _milvus(stack, error)
    assert caught.value.service == "milvus"


@pytest.mark.parametrize(
    "error", [MilvusException(1, "no such field"), _RpcError(grpc.StatusCode.INVALID_ARGUMENT)]
)
def test_what_milvus_refuses_is_no_outage(stack: Stack, error: Exception):
    with pytest.raises(type(error)):
        _milvus(stack, error)


def _milvus(stack: Stack, error: Exception) -> None:
    def fails(_: object) -> None:
        raise error

    urls = stack.urls()
    connection = Connection(urls.milvus_uri, urls.milvus_token, patience_s=0.0)
    try:
        connection.call(fails)
    finally:
        connection.close()
