import pytest
from sqlalchemy import text

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores import leases


def test_one_holder_at_a_time(database):
    assert leases.acquire(database, "dispatcher", "a", 30) == 1
    assert leases.acquire(database, "dispatcher", "b", 30) is None
    assert leases.acquire(database, "dispatcher", "a", 30) == 1, "renewing keeps the token"


def test_an_expired_lease_goes_to_the_next_with_a_higher_token(database):
    leases.acquire(database, "dispatcher", "frozen", 30)
    with database.begin() as connection:
        connection.execute(text("UPDATE lease SET expires_at = now() - interval '1 s'"))

    assert leases.acquire(database, "dispatcher", "b", 30) == 2
    assert leases.acquire(database, "dispatcher", "frozen", 30) is None


def test_a_released_lease_is_free_at_once(database):
    leases.acquire(database, "milvus-writer", "a", 30)
    leases.release(database, "milvus-writer", "a")

    assert leases.acquire(database, "milvus-writer", "b", 30) == 2


def test_waiting_for_a_lease_ends_with_a_clear_error(database):
    leases.acquire(database, "milvus-writer", "a", 30)

    with (
        pytest.raises(ServiceUnavailableError, match="milvus-writer"),
        leases.hold(database, "milvus-writer", "b", timeout_s=0.1),
    ):
        pass


def test_whoever_waits_for_a_lease_may_give_up(database):
    leases.acquire(database, "milvus-writer", "killed", 30)

    def give_up() -> None:
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        leases.hold(database, "milvus-writer", "b", waiting=give_up),
    ):
        pass
