"""Pruning takes tokens that no live item needs, and no file that is not theirs."""

import json
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.schema.errors import NotFoundError
from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import TokenParams
from nightshift.schema.plans import TokenPlan
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import receipts, runs
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.ledger.new_runs import create_token_run
from nightshift.stores.models import upsert_model
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens import token_sets
from nightshift.stores.tokens.shard_files import list_shards, shard_name
from nightshift.stores.tokens.shards import writing_shard
from nightshift.stores.tokens.token_pruning import PruneReport, prune_tokens
from nightshift.stores.tokens.token_sets import NewTokenRecord, TokenSetRow
from tests.catalog_rows import ITEMS, end_item, set_hash
from tests.stores.ledger_helpers import FINGERPRINT, add_catalog

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


@dataclass
class Kept:
    """A token set of a catalogue of three items, whose images are A, B and C."""

    database: Database
    token_set: TokenSetRow
    run_id: int

    def store(self, *contents: bytes, images: int = 1) -> str:
        """Write a shard as a job of the run does."""
        name = shard_name(self.run_id, 1)
        with writing_shard(f"{self.token_set.address}/{name}") as writer:
            records = [
                NewTokenRecord(
                    content=content, place=writer.add(content), n_images=images, n_tokens=1
                )
                for content in contents
            ]
            shard = writer.shard(name)
        with self.database.begin() as connection:
            token_sets.write_shard_rows(
                connection,
                set_id=self.token_set.id,
                run_id=self.run_id,
                name=name,
                shard=shard,
                records=records,
            )
        return name

    def leave(self, name: str, content: bytes = b"left") -> str:
        """Put a file that no row names into the set's folder."""
        with fsspec.open(f"{self.token_set.address}/{name}", "wb", auto_mkdir=True) as stream:
            stream.write(content)
        return name

    def files(self) -> set[str]:
        return {shard.name for shard in list_shards(self.token_set.address)}

    def shards(self) -> int:
        return int(self.value("SELECT count(*) FROM token_shard WHERE token_set_id = :set"))

    def value(self, statement: str, **values: object) -> int:
        with self.database.begin() as connection:
            given = {"set": self.token_set.id, "run": self.run_id, **values}
            return connection.execute(text(statement), given).scalar()

    def drop_item(self, content: bytes) -> None:
        with self.database.begin() as connection:
            name = connection.execute(
                text(f"SELECT external_id FROM {ITEMS} AS item WHERE image_hash = :c"),
                {"c": content},
            ).scalar_one()
            end_item(connection, name)

    def set_run(self, state: str) -> None:
        self.value(
            "UPDATE run SET state = :s, finished_at = CASE WHEN :s IN ('done', 'failed', "
            "'cancelled') THEN now() END WHERE id = :run RETURNING 1",
            s=state,
        )

    def prune(self, **how) -> PruneReport:
        return prune_tokens(self.database, **how)


def kept_in(database: Database, address: str, name: str = "things") -> Kept:
    """A set with one token run, which is done."""
    catalog_id = add_catalog(database, name, n_items=3)
    with database.begin() as connection:
        for number, content in enumerate((A, B, C)):
            set_hash(connection, f"item-{number}", image_hash=content)
        upsert_model(
            connection, fingerprint=FINGERPRINT, kind="vision", spec="hf:test", card={},
            package_version="0",
        )  # fmt: skip
        token_set = token_sets.ensure_set(
            connection, catalog_id=catalog_id, vision_fingerprint=FINGERPRINT, codec="int8",
            width=4, precision="float32", address=address,
        )  # fmt: skip
        run_id = create_token_run(
            connection, stage=Stage.TOKENS, catalog_id=catalog_id, revision=1, vision="hf:test",
            vision_fingerprint=FINGERPRINT, token_set_id=token_set.id,
            params=TokenParams(codec="int8"), plan=TokenPlan(),
        )  # fmt: skip
        ids = token_sets.items_to_see(connection, token_set, revision=1)
        jobs = [BlockPayload(ids=ids)]
        add_jobs(connection, run_id, Stage.TOKENS, "tokens", jobs)
        runs.set_run_state(connection, run_id, RunState.DONE)
    return Kept(database, token_set, run_id)


@pytest.fixture(params=["disk", "memory"])
def kept(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Kept:
    on_disk = request.param == "disk"
    return kept_in(database, f"{tmp_path}/t" if on_disk else f"memory://{tmp_path.name}/t")


def test_a_shard_goes_when_no_live_item_has_any_of_its_images(kept: Kept):
    dead, mixed, live = kept.store(A, images=3), kept.store(B), kept.store(C, b"x" * 32)
    kept.drop_item(A)
    kept.value(
        "UPDATE content SET image_hash = :new WHERE image_hash = :b RETURNING 1", new=b"n", b=B
    )
    assert kept.files() == {dead, mixed, live}

    planned = kept.prune(dry_run=True)
    assert (kept.shards(), kept.files()) == (3, {dead, mixed, live})
    done = kept.prune()

    assert done == planned
    assert (done.images, done.bytes, done.skipped) == (4, 64, [])
    assert (kept.shards(), kept.files()) == (1, {live})
    assert kept.prune().sets == []


def test_files_of_the_set_s_own_runs_that_no_row_names_go_and_others_stay(kept: Kept):
    live = kept.store(A)
    run = f"run-{kept.run_id}"
    part = kept.leave(f"{run}/.77.0123456789ab.part")
    lost = kept.leave(shard_name(kept.run_id, 4))
    strange = [
        kept.leave(name)
        for name in (f"{run}/notes.txt", f"{run}/1-{'0' * 31}.tokens", f"{run}/deep/{lost}",
                     shard_name(kept.run_id + 1, 1), "1-ab.tokens")
    ]  # fmt: skip

    report = kept.prune()

    (pruned,) = report.sets
    assert (pruned.shards, pruned.leftovers, pruned.leftover_bytes) == (0, 2, 8)
    left = fsspec.core.url_to_fs(kept.token_set.address)
    names = {path.rpartition("/t/")[2] for path in left[0].find(left[1])}
    assert names == {live, *strange}
    assert not {part, lost} & names


def test_what_a_crash_leaves_behind_goes_with_the_next_pruning(kept: Kept):
    names = {kept.store(A), kept.store(B)}
    kept.drop_item(A)
    kept.drop_item(B)

    def crash(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.prune(report_progress=crash)
    assert kept.shards() == 0
    assert len(kept.files() & names) == 1

    report = kept.prune()

    assert (report.sets[0].leftovers, report.bytes) == (1, 32)
    assert kept.files() == set()


@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_catalogue_whose_tokens_are_read_is_left_alone_and_others_are_not(
    database: Database, tmp_path: Path, state: str
):
    busy, idle = (kept_in(database, str(tmp_path / "t"), name) for name in ("busy", "idle"))
    dead = [entry.store(b"x" * 32) for entry in (busy, idle)]
    lost = busy.leave(shard_name(busy.run_id, 9))
    busy.set_run(state)

    report = busy.prune()

    assert [entry.catalog for entry in report.sets] == ["idle"]
    (line,) = report.skipped
    assert "'busy'" in line
    assert f"run {busy.run_id} " in line
    assert busy.files() == {dead[0], lost}, "both sets lie in one folder"


def test_a_cancelled_run_is_waited_for_while_a_worker_has_a_job_of_it(database, tmp_path):
    kept = kept_in(database, str(tmp_path / "t"))
    kept.store(b"x" * 32)
    kept.set_run("running")
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=3)
    claim = ledger.claim(kept.run_id, 1)
    kept.set_run("cancelled")

    assert len(kept.prune().skipped) == 1
    ledger.hand_back(claim, "cancelled")
    assert (kept.prune().skipped, kept.shards()) == ([], 0)


def test_a_named_set_goes_as_a_whole_and_its_runs_have_lost_nothing(database, tmp_path):
    kept, other = (kept_in(database, str(tmp_path / "t"), name) for name in ("one", "other"))
    stays, dead = other.store(A, B), other.store(b"x" * 32)
    kept.store(A, B)
    kept.store(C)

    def crash(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.prune(named=[kept.token_set.id], report_progress=crash)
    assert kept.value("SELECT count(*) FROM token_set WHERE id = :set") == 1
    report = kept.prune(named=[kept.token_set.id])

    assert [(entry.shards, entry.leftovers) for entry in report.sets] == [(0, 1)]
    assert kept.value("SELECT count(*) FROM token_set WHERE id = :set") == 0
    assert other.files() == {stays, dead}
    with database.begin() as connection:
        (tally,) = receipts.balances(connection, runs.get_run(connection, kept.run_id))
    assert (tally.expected, tally.done) == (3, 3)
    with pytest.raises(NotFoundError, match="tokens list"):
        kept.prune(named=[kept.token_set.id])


def test_a_set_through_which_an_index_shows_items_is_left_alone(database, tmp_path):
    kept = kept_in(database, str(tmp_path / "t"))
    kept.store(A)
    with database.begin() as connection:
        upsert_model(
            connection, fingerprint="coded", kind="embedder", spec="freeret:x?codec=int8",
            card={"vision": FINGERPRINT, "params": {"codec": "int8"}}, package_version="0",
        )  # fmt: skip
    kept.value(
        'INSERT INTO "index" (catalog_id, name, version, embedder, embedder_fingerprint, parts, '
        "dim, collection) SELECT catalog_id, 'by-tokens', 1, 'freeret:x', 'coded', 'image', 4, 'c' "
        "FROM token_set WHERE id = :set RETURNING 1"
    )

    report = kept.prune(named=[kept.token_set.id])

    assert report.sets == []
    assert "'by-tokens'" in report.skipped[0]
    assert kept.shards() == 1


def test_the_command_says_what_goes_and_what_is_left_alone(database, database_url, tmp_path):
    kept = kept_in(database, str(tmp_path / "t"))
    kept.store(b"x" * 32, images=1200)
    environment = {
        "NIGHTSHIFT_DATABASE_URL": database_url,
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "nothing-here"),
    }

    def cli(*words: str) -> str:
        done = CliRunner(env=environment).invoke(main, ["tokens", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    (listed,) = json.loads(cli("list", "--json"))
    assert listed["id"] == kept.token_set.id
    assert "1,200 images, 32 bytes, would be deleted" in cli("prune", "--dry-run")
    printed = json.loads(cli("prune", "--json", "--set", str(kept.token_set.id)))
    assert (printed["images"], printed["bytes"], printed["dry_run"]) == (1200, 32, False)
    assert printed["sets"][0]["shards"] == 1
    assert "0 images, 0 bytes, were deleted" in cli("prune")
