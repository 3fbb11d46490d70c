import subprocess
import sys

import pytest
from sqlalchemy import text

from nightshift.schema.errors import LeaseLostError, ServiceUnavailableError
from nightshift.stores.postgres import named_leases

_HOLDS_FOR_EVER = """
import sys, time
from nightshift.stores.postgres import named_leases
from nightshift.stores.postgres.database import Database
with named_leases.hold(Database(sys.argv[1]), "milvus-writer", "slow", ttl_s=2.0):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_holder_at_a_time(database):
    assert named_leases.acquire(database, "dispatcher", "a", 30) == 1
    assert named_leases.acquire(database, "dispatcher", "b", 30) is None
    assert named_leases.acquire(database, "dispatcher", "a", 30) == 1, "renewing keeps the token"


def test_an_expired_lease_goes_to_the_next_with_a_higher_token(database):
    named_leases.acquire(database, "dispatcher", "frozen", 30)
    with database.begin() as connection:
        connection.execute(text("UPDATE lease SET expires_at = now() - interval '1 s'"))

    assert named_leases.acquire(database, "dispatcher", "b", 30) == 2
    assert named_leases.acquire(database, "dispatcher", "frozen", 30) is None


def test_a_released_lease_is_free_at_once(database):
    named_leases.acquire(database, "milvus-writer", "a", 30)
    named_leases.release(database, "milvus-writer", "a")

    assert named_leases.acquire(database, "milvus-writer", "b", 30) == 2


def test_waiting_for_a_lease_ends_with_a_clear_error(database):
    named_leases.acquire(database, "milvus-writer", "a", 30)

    with (
        pytest.raises(ServiceUnavailableError, match="milvus-writer"),
        named_leases.hold(database, "milvus-writer", "b", timeout_s=0.1),
    ):
        pass


def test_whoever_waits_for_a_lease_may_give_up(database):
    named_leases.acquire(database, "milvus-writer", "killed", 30)

    def give_up() -> None:
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        named_leases.hold(database, "milvus-writer", "b", waiting=give_up),
    ):
        pass


def test_a_slow_holder_keeps_its_lease_beyond_its_term_and_a_killed_one_does_not(
    database, database_url
):
    slow = subprocess.Popen(
        [sys.executable, "-c", _HOLDS_FOR_EVER, database_url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert slow.stdout.readline() == "held\n"
        sleep_until_it_runs_out(database)
        assert named_leases.acquire(database, "milvus-writer", "second", 30) is None
    finally:
        slow.kill()
        slow.communicate()

    with named_leases.hold(database, "milvus-writer", "second", timeout_s=60) as token:
        assert token == 2


def test_those_who_call_themselves_the_same_take_turns(database):
    with (
        named_leases.hold(database, "milvus-writer", "doctor"),
        pytest.raises(ServiceUnavailableError, match="was not free"),
        named_leases.hold(database, "milvus-writer", "doctor", timeout_s=0.1),
    ):
        pass

    with named_leases.hold(database, "milvus-writer", "doctor", timeout_s=0.1):
        pass


def test_a_holder_whose_lease_went_to_another_learns_of_it_and_takes_nothing_back(database):
    with (
        pytest.raises(LeaseLostError, match="milvus-writer"),
        named_leases.hold(database, "milvus-writer", "frozen", ttl_s=0.2),
    ):
        hand_over(database, "second")
        sleep_until_it_runs_out(database)

    assert holder_and_token(database) == ("second", 2)


def test_a_holder_learns_that_another_has_come_and_gone(database):
    with (
        pytest.raises(LeaseLostError, match="milvus-writer"),
        named_leases.hold(database, "milvus-writer", "frozen"),
    ):
        hand_over(database, "second")
        named_leases.release(database, "milvus-writer", "second")

    assert named_leases.acquire(database, "milvus-writer", "third", 30) == 3


def hand_over(database, holder):
    """As if the lease had run out: in one step, before it is renewed."""
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE lease SET holder = :holder, token = token + 1, "
                "expires_at = clock_timestamp() + interval '0.2 s'"
            ),
            {"holder": holder},
        )


def sleep_until_it_runs_out(database):
    """By what the row says now, whatever renewals come meanwhile."""
    with database.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_sleep(greatest(0, extract(epoch FROM expires_at - clock_timestamp())))"
                " FROM lease"
            )
        )


def holder_and_token(database):
    with database.begin() as connection:
        return tuple(connection.execute(text("SELECT holder, token FROM lease")).one())
