"""Backups of a running stack: restored elsewhere they are the same, damaged ones are refused."""

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.results.verify import verify
from nightshift.schema.errors import ConflictError, InputError, NotFoundError
from nightshift.schema.records import ImagePart
from nightshift.stack import Stack, StackState
from nightshift.stack.backup import BackupManifest, restore
from nightshift.stores.files.blobs import BlobStore
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database
from tests.catalog_rows import ITEMS, replace_parts
from tests.results.ranked import add_reference_run

_ROWS = 3000


@pytest.fixture(scope="module")
def parent_folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="ns-backup-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def original(parent_folder: Path) -> Iterator[Stack]:
    """A stack with a run, vectors, a blob that an item shows, and stored tokens."""
    stack = Stack(parent_folder / "original")
    try:
        stack.up(0, dispatcher=False)
        urls = stack.urls()
        blob = BlobStore(stack.data_dir / "blobs").put(b"an image")
        shard = stack.data_dir / "tokens" / "run-1" / "1-ab.tokens"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"tokens")
        with Database(urls.database_url) as database:
            add_reference_run(database)
            with database.begin() as connection:
                replace_parts(connection, "i1", ImagePart(uri=blob, sha256="00"))
        with VectorStore(urls.milvus_uri, urls.milvus_token) as store:
            store.create("ns_things", 8, "HNSW")
            store.upsert("ns_things", *_vectors())
            store.flush("ns_things")
            store.set_alias("ns_alias", "ns_things")
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def backup(original: Stack, parent_folder: Path) -> Path:
    """Made by the command, while the stack runs."""
    target = parent_folder / "backup"
    done = _nightshift("backup", str(target), "--data-dir", str(original.data_dir), "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["vectors"], facts["files"]) == (_ROWS, 4)
    return target


@pytest.fixture
def damaged(backup: Path, tmp_path: Path) -> Path:
    """A copy of the backup that a test may spoil."""
    return Path(shutil.copytree(backup, tmp_path / "damaged"))


def _nightshift(*words: str, env: dict[str, str] | None = None):
    return CliRunner(env=env).invoke(main, list(words))


def _vectors() -> tuple[list[str], np.ndarray]:
    values = np.random.default_rng(0).standard_normal((_ROWS, 8)).astype(np.float32)
    return [f"{number * 7919:064x}" for number in range(_ROWS)], values


def _digest(stack: Stack) -> str:
    with Database(stack.urls().database_url) as database:
        return verify(database, 1).digest


def test_a_restored_stack_is_the_same_and_serves_at_once(
    original: Stack, backup: Path, parent_folder: Path
):
    copy = Stack(parent_folder / "restored")
    done = _nightshift("restore", str(backup), "--data-dir", str(copy.data_dir))
    assert done.exit_code == 0, done.output
    assert f"start it: nightshift up --data-dir {copy.data_dir}" in done.output
    try:
        copy.up(0, dispatcher=False)

        assert _digest(copy) == _digest(original)
        mine, theirs = copy.urls(), original.urls()
        with Database(mine.database_url) as database, database.begin() as connection:
            query = f"SELECT parts -> 0 ->> 'uri' FROM {ITEMS} AS item WHERE external_id = 'i1'"
            blob = Path(connection.execute(text(query)).scalar_one())
        assert blob.is_relative_to(copy.data_dir)
        assert blob.read_bytes() == b"an image"
        assert (copy.data_dir / "tokens" / "run-1" / "1-ab.tokens").read_bytes() == b"tokens"
        wanted = _vectors()[1][:5]
        with (
            VectorStore(mine.milvus_uri, mine.milvus_token) as restored,
            VectorStore(theirs.milvus_uri, theirs.milvus_token) as store,
        ):
            assert restored.shape("ns_things") == store.shape("ns_things")
            kept = [dict(zip(*page, strict=True)) for page in restored.rows("ns_things")]
            rows = {key: row for page in kept for key, row in page.items()}
            assert sorted(rows) == sorted(_vectors()[0])
            assert np.array_equal([rows[key] for key in _vectors()[0]], _vectors()[1])
            hits = restored.search("ns_alias", wanted, 1)
            assert [hit.key for (hit,) in hits] == _vectors()[0][:5]
        secrets = {"postgres_password", "redis_password", "milvus_token"}
        states = [StackState.load(stack.data_dir).model_dump() for stack in (original, copy)]
        assert not {states[0][name] for name in secrets} & {states[1][name] for name in secrets}
    finally:
        copy.down()


def test_a_backup_is_its_owner_s_alone_and_holds_no_password(original: Stack, backup: Path):
    state = StackState.load(original.data_dir)
    assert state is not None
    secrets = (state.postgres_password, state.redis_password, state.milvus_token)
    for path in (backup, *backup.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret.encode() in data for secret in secrets)


def test_damage_to_any_file_is_found_and_named_before_anything_is_written(
    damaged: Path, tmp_path: Path
):
    for file in BackupManifest.read(damaged).files:
        path = damaged / file.path
        data = path.read_bytes()
        for spoilt in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), data + b"\0", None):
            path.unlink() if spoilt is None else path.write_bytes(spoilt)
            with pytest.raises(InputError, match=str(path)):
                restore(damaged, tmp_path / "new", lambda _: None)
        path.symlink_to("/dev/zero")
        with pytest.raises(InputError, match=str(path)):
            restore(damaged, tmp_path / "new", lambda _: None)
        path.unlink()
        path.write_bytes(data)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_backup_is_never_taken_for_a_whole_one(damaged: Path, tmp_path: Path):
    (damaged / "manifest.json").rename(damaged / "manifest.json.new")

    with pytest.raises(NotFoundError, match="interrupted"):
        restore(damaged, tmp_path / "new", lambda _: None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "newer"),
        ({"revision": "9999"}, "upgrade"),
        ({"files": [{"path": "../x", "n_bytes": 0, "sha256": ""}]}, "damaged"),
        ({"files": []}, "damaged"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(damaged: Path, tmp_path: Path, changed, message):
    path = damaged / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    with pytest.raises(InputError, match=message):
        restore(damaged, tmp_path / "new", lambda _: None)
    assert not (tmp_path / "new").exists()


def test_a_restore_never_writes_over_a_stack(original: Stack, backup: Path):
    before = _digest(original)

    with pytest.raises(ConflictError, match="is not empty"):
        restore(backup, original.data_dir, lambda _: None)

    assert original.status().healthy
    assert _digest(original) == before


def test_an_interrupted_restore_is_not_started(tmp_path: Path):
    StackState(restoring=True).save(tmp_path)

    with pytest.raises(ConflictError, match=r"a restore into .* was interrupted"):
        Stack(tmp_path).up(0, dispatcher=False)


def test_where_a_backup_cannot_be_made_it_says_why(
    original: Stack, parent_folder: Path, tmp_path: Path
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    here = ("--data-dir", str(original.data_dir))
    elsewhere = {"NIGHTSHIFT_DATABASE_URL": "postgresql+psycopg2://u:p@h/d"}

    full = _nightshift("backup", str(tmp_path / "full"), *here)
    inside = _nightshift("backup", str(original.data_dir / "backup"), *here)
    stopped = _nightshift("backup", str(tmp_path / "b"), "--data-dir", str(parent_folder / "none"))
    foreign = _nightshift("backup", str(tmp_path / "b"), *here, env=elsewhere)

    assert (full.exit_code, "is not an empty directory" in full.output) == (4, True)
    assert (inside.exit_code, "lies in the data directory" in inside.output) == (4, True)
    assert (stopped.exit_code, "nightshift up" in stopped.output) == (6, True)
    assert (foreign.exit_code, "NIGHTSHIFT_DATABASE_URL" in foreign.output) == (2, True)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
    assert not (tmp_path / "b").exists()
