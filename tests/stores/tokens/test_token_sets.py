"""Token sets: one truth about what is stored, whoever writes and however often."""

from pathlib import Path

import pytest
from sqlalchemy import text

from nightshift.schema.errors import ConflictError, LeaseLostError
from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import TokenParams
from nightshift.schema.plans import TokenPlan
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import receipts, runs
from nightshift.stores.ledger.claims import Claim, Ledger
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.ledger.new_runs import create_token_run
from nightshift.stores.ledger.run_types import TokenRun
from nightshift.stores.models import upsert_model
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens import token_sets
from nightshift.stores.tokens.shards import read_records, writing_shard
from nightshift.stores.tokens.token_reports import list_sets
from nightshift.stores.tokens.token_sets import NewTokenRecord, TokenSetRow
from tests.catalog_rows import set_hash
from tests.stores.ledger_helpers import FINGERPRINT, add_catalog, expire, make_due


@pytest.fixture
def token_set(database: Database, tmp_path: Path) -> TokenSetRow:
    """A token set of four items with images, two of them the same, and one item without."""
    catalog_id = add_catalog(database, n_items=5)
    with database.begin() as connection:
        for number, image in enumerate([b"a", b"b", b"b", b"c"]):
            set_hash(connection, f"item-{number}", image_hash=image * 32)
    return ensure(database, catalog_id, str(tmp_path / "tokens"))


def ensure(database: Database, catalog_id: int, address: str, codec: str = "none") -> TokenSetRow:
    with database.begin() as connection:
        upsert_model(
            connection,
            fingerprint=FINGERPRINT,
            kind="vision",
            spec="hf:test",
            card={},
            package_version="0",
        )
        return token_sets.ensure_set(
            connection,
            catalog_id=catalog_id,
            vision_fingerprint=FINGERPRINT,
            codec=codec,
            width=4,
            precision="float32",
            address=address,
        )


def to_see(database: Database, token_set: TokenSetRow) -> list[str]:
    with database.begin() as connection:
        ids = token_sets.items_to_see(connection, token_set, revision=1)
        rows = connection.execute(
            text("SELECT external_id FROM item WHERE id = ANY(:ids) ORDER BY id"), {"ids": ids}
        )
        return [row.external_id for row in rows]


def store(database: Database, token_set: TokenSetRow, name: str, *contents: bytes) -> None:
    with database.begin() as connection:
        store_in(connection, token_set, name, *contents)


def store_in(connection, token_set: TokenSetRow, name: str, *contents: bytes) -> None:
    address = f"{token_set.address}/{name}"
    with writing_shard(address) as writer:
        records = [
            NewTokenRecord(
                content=content, place=writer.add(name.encode() + content), n_images=2, n_tokens=9
            )
            for content in contents
        ]
        shard = writer.shard(address)
    token_sets.write_shard_rows(
        connection, set_id=token_set.id, run_id=1, name=name, shard=shard, records=records
    )


def read(database: Database, token_set: TokenSetRow, *contents: bytes) -> dict[bytes, object]:
    with database.begin() as connection:
        records = token_sets.find_records(connection, token_set, contents)
    return {
        content: read_records(place.address, [place.place])[0] for content, place in records.items()
    }


def test_each_content_is_seen_once_whatever_the_items_that_show_it(database, token_set):
    assert to_see(database, token_set) == ["item-0", "item-1", "item-3"]

    store(database, token_set, "1.shard", b"b" * 32)

    assert to_see(database, token_set) == ["item-0", "item-3"]


def test_records_are_found_by_content(database, token_set):
    store(database, token_set, "1.shard", b"a" * 32, b"b" * 32)

    readings = read(database, token_set, b"b" * 32, b"c" * 32)

    assert readings == {b"b" * 32: b"1.shard" + b"b" * 32}


def test_where_two_jobs_store_the_same_content_the_first_stays_and_both_are_readable(
    database, token_set
):
    store(database, token_set, "1.shard", b"a" * 32)
    store(database, token_set, "2.shard", b"a" * 32, b"b" * 32)

    readings = read(database, token_set, b"a" * 32, b"b" * 32)

    assert readings[b"a" * 32] == b"1.shard" + b"a" * 32
    assert readings[b"b" * 32] == b"2.shard" + b"b" * 32


def test_the_size_of_an_image_is_measured(database, token_set):
    store(database, token_set, "1.shard", b"a" * 32, b"b" * 32)

    with database.begin() as connection:
        (summary,) = list_sets(connection)

    # Two records of 7 + 32 bytes, of two images each; three live items show the two contents.
    assert (summary.items, summary.stored, summary.images) == (4, 3, 4)
    assert (summary.bytes, summary.bytes_per_image, summary.shards) == (78, 19.5, 1)


def test_a_lost_shard_is_forgotten_and_its_contents_are_to_be_seen_again(database, token_set):
    store(database, token_set, "1.shard", b"a" * 32)
    store(database, token_set, "2.shard", b"b" * 32, b"c" * 32)

    with database.begin() as connection:
        (_, _), (second, shard) = token_sets.shards(connection, token_set)
        n_lost = token_sets.forget_shard(connection, second)

    assert (n_lost, shard.n_bytes) == (2, 78)
    assert to_see(database, token_set) == ["item-1", "item-3"]


def test_a_set_stays_where_it_was_begun(database, token_set):
    repeated = ensure(database, token_set.catalog_id, token_set.address)
    assert repeated == token_set
    with pytest.raises(ConflictError, match="leave --store out"):
        ensure(database, token_set.catalog_id, "elsewhere")
    other = ensure(database, token_set.catalog_id, "elsewhere", codec="int8")
    assert other.id != token_set.id


def test_the_first_codebook_stays(database, token_set):
    with database.begin() as connection:
        assert token_sets.codebook(connection, token_set.id) is None
        token_sets.keep_codebook(connection, token_set.id, b"book", "digest")
        token_sets.keep_codebook(connection, token_set.id, b"other", "other")

        assert token_sets.codebook(connection, token_set.id) == b"book"
        assert token_sets.get_set(connection, token_set.id).codebook_digest == "digest"


# Under the ledger.


def token_run(database: Database, token_set: TokenSetRow) -> int:
    with database.begin() as connection:
        run_id = create_token_run(
            connection,
            stage=Stage.TOKENS,
            catalog_id=token_set.catalog_id,
            revision=1,
            vision="hf:test",
            vision_fingerprint=FINGERPRINT,
            token_set_id=token_set.id,
            params=TokenParams(),
            plan=TokenPlan(),
        )
        ids = token_sets.items_to_see(connection, token_set, revision=1)
        jobs = [BlockPayload(ids=ids)]
        add_jobs(connection, run_id, Stage.TOKENS, f"tokens.{FINGERPRINT}", jobs)
    return run_id


def claimed(ledger: Ledger, run_id: int) -> Claim:
    claim = ledger.claim(run_id, 1)
    assert claim
    return claim


def test_a_zombie_that_wakes_late_makes_nothing_readable(database, token_set):
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=3)
    run_id = token_run(database, token_set)
    late = claimed(ledger, run_id)
    expire(database, run_id, 1)
    with database.begin() as connection:
        from nightshift.stores.ledger.retries import expire_leases

        expire_leases(connection, max_attempts=3)
    make_due(database, run_id)
    second = claimed(ledger, run_id)

    with pytest.raises(LeaseLostError), ledger.finish(late) as connection:
        store_in(connection, token_set, "late.shard", b"a" * 32)
    with ledger.finish(second) as connection:
        store_in(connection, token_set, "second.shard", b"a" * 32, b"b" * 32)

    assert read(database, token_set, b"a" * 32) == {b"a" * 32: b"second.shard" + b"a" * 32}
    with database.begin() as connection:
        assert len(list(token_sets.shards(connection, token_set))) == 1


def test_the_books_of_a_token_run_count_images(database, token_set):
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=3)
    run_id = token_run(database, token_set)
    with ledger.finish(claimed(ledger, run_id)) as connection:
        store_in(connection, token_set, "1.shard", b"a" * 32, b"b" * 32)
        runs.set_run_state(connection, run_id, RunState.DONE)

    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        (tally,) = receipts.balances(connection, run)
        (gap,) = receipts.gaps(connection, run, tally.unit)

    assert (tally.unit, tally.expected, tally.done, tally.failed) == ("pictures", 3, 2, 0)
    assert gap.subject_id == "item-3"
    assert isinstance(run, TokenRun)
    assert run.queue == f"tokens.{FINGERPRINT}"
