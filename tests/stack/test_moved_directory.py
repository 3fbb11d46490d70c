"""Data directories that are moved, renamed or copied, and who may look into them."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2
import pytest
from sqlalchemy import make_url

from nightshift.cli.embedded_stack import open_stack
from nightshift.schema.errors import ConfigurationError, ConflictError, NotFoundError
from nightshift.stack import Stack, StackState

_SERVICES = ("postgres", "redis", "milvus")


@pytest.fixture(scope="module")
def parent_folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="ns-moved-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def made(parent_folder: Path) -> Iterator[Stack]:
    """A stack whose database names a blob, a caption and a token set of the data directory."""
    stack = open_stack(parent_folder / "it's a \\home")
    try:
        stack.up(0, dispatcher=False)
        here = str(stack.data_dir)
        sql(stack, "INSERT INTO catalog (name) VALUES ('things')")
        parts = [
            {"kind": "text", "text": f'it says "uri": "{here}/blobs/ab/abc"'},
            {"kind": "image", "uri": f"{here}/blobs/ab/abc", "sha256": "00"},
            {"kind": "image", "uri": f"{here}-elsewhere/x.png", "sha256": "11"},
        ]
        sql(
            stack,
            "INSERT INTO content (digest, parts, content_hash) "
            "SELECT sha256(convert_to(parts::text, 'UTF8')), parts, 'x' "
            "FROM (SELECT CAST(%s AS jsonb) AS parts) AS given",
            json.dumps(parts),
        )
        yield stack
    finally:
        stack.down()


@pytest.fixture
def original(made: Stack) -> Iterator[Stack]:
    """It runs before and after each test."""
    made.up(0, dispatcher=False)
    yield made
    made.up(0, dispatcher=False)
    assert made.status().healthy


def sql(stack: Stack, statement: str, *values: object) -> list[tuple[object, ...]]:
    url = make_url(stack.urls().database_url).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def pids(stack: Stack) -> list[int | None]:
    return [part.pid for part in stack.status().parts]


def addresses(stack: Stack) -> list[str]:
    ((parts, agrees),) = sql(
        stack, "SELECT parts, digest = sha256(convert_to(parts::text, 'UTF8')) FROM content"
    )
    assert agrees
    return [part.get("uri") or part["text"] for part in parts]


def test_a_copy_is_a_stack_of_its_own_while_the_original_runs(original: Stack, parent_folder: Path):
    original.down()
    copy = Stack(parent_folder / "copy")
    shutil.copytree(original.data_dir, copy.data_dir, symlinks=True)
    original.up(0, dispatcher=False)
    before, texts = pids(original), addresses(original)
    try:
        copy.up(0, dispatcher=False)
        sql(copy, "UPDATE catalog SET name = 'of the copy'")

        assert copy.status().healthy
        assert pids(original) == before
        assert sql(original, "SELECT name FROM catalog") == [("things",)]
        mine, theirs = copy.urls(), original.urls()
        assert mine.database_url != theirs.database_url
        assert mine.redis_url.split("@")[0] != theirs.redis_url.split("@")[0]
        assert mine.milvus_uri != theirs.milvus_uri
        assert mine.milvus_token != theirs.milvus_token
        # The copy reads its own blobs; what a text says, and what lies elsewhere, stays.
        assert addresses(copy) == [texts[0], f"{copy.data_dir}/blobs/ab/abc", texts[2]]
        assert addresses(original) == texts
    finally:
        copy.down()
    assert pids(original) == before
    assert original.status().healthy


def test_a_copy_of_a_running_stack_is_refused_and_signals_nobody(
    original: Stack, parent_folder: Path
):
    copy = Stack(parent_folder / "torn")
    subprocess.run(["cp", "-a", str(original.data_dir), str(copy.data_dir)], check=False)
    before = pids(original)

    assert {part.state for part in copy.status().parts} == {"stopped"}
    assert not any(copy.is_running(name) for name in _SERVICES)
    with pytest.raises(ConfigurationError, match="is a copy of"):  # of the original's addresses
        copy.urls()
    with pytest.raises(NotFoundError):
        copy.kill("redis")
    for _ in range(2):
        with pytest.raises(ConflictError, match=r"made while services ran there.*backup"):
            copy.up(0, dispatcher=False)
    assert copy.down() == ()
    with pytest.raises(ConflictError, match="made while services ran there"):
        copy.up(0, dispatcher=False)
    assert pids(original) == before
    assert original.status().healthy


def test_a_moved_directory_is_found_again_with_its_blobs(original: Stack, parent_folder: Path):
    texts = addresses(original)
    original.down()
    moved = Stack(parent_folder / "moved")
    original.data_dir.rename(moved.data_dir)
    try:
        moved.up(0, dispatcher=False)

        assert addresses(moved) == [texts[0], f"{moved.data_dir}/blobs/ab/abc", texts[2]]
    finally:
        moved.down()
        moved.data_dir.rename(original.data_dir)
    original.up(0, dispatcher=False)
    assert addresses(original) == texts


def test_what_runs_in_a_renamed_directory_is_started_again_at_its_new_place(
    original: Stack, parent_folder: Path
):
    before = pids(original)
    renamed = Stack(parent_folder / "renamed")
    original.data_dir.rename(renamed.data_dir)
    try:
        assert pids(renamed) == before
        renamed.up(0, dispatcher=False)

        assert renamed.status().healthy
        assert not set(filter(None, pids(renamed))) & set(before)
        assert not any(pid and Path(f"/proc/{pid}/exe").exists() for pid in before)
    finally:
        renamed.down()
        renamed.data_dir.rename(original.data_dir)


def test_what_an_earlier_version_started_is_known_and_started_again(
    original: Stack, parent_folder: Path
):
    original.up(0)
    before = pids(original)
    for path in (original.data_dir / "run").glob("*.json"):
        record = json.loads(path.read_text())
        del record["home"]  # earlier pid files did not say where they lie
        path.write_text(json.dumps(record))
    copy = Stack(parent_folder / "of-earlier")
    subprocess.run(["cp", "-a", str(original.data_dir), str(copy.data_dir)], check=False)

    assert pids(original) == before
    assert copy.down() == ()
    original.up(0)

    assert original.status().healthy
    assert not set(filter(None, pids(original))) & set(before)
    assert not any(pid and Path(f"/proc/{pid}/exe").exists() for pid in before)
    assert "dispatcher" in original.down()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone kept Postgres elsewhere")
def test_a_cluster_that_an_earlier_version_kept_outside_is_taken_in(
    original: Stack, parent_folder: Path
):
    original.down()
    outside = parent_folder / "nightshift-0123abcd"
    outside.mkdir()
    (original.data_dir / "postgres").rename(outside / "postgres")
    state = StackState.load(original.data_dir)
    assert state is not None
    state.postgres_home, state.identity = outside, None
    state.save(original.data_dir)

    original.up(0, dispatcher=False)

    assert sql(original, "SELECT name FROM catalog") == [("things",)]
    assert (original.data_dir / "postgres").is_dir()
    assert (outside / "postgres").is_dir()


def test_everything_in_a_data_directory_is_its_owner_s_alone(original: Stack):
    assert stat.S_IMODE(original.data_dir.stat().st_mode) == 0o700
    for path in original.data_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_data_directory_is_closed_where_it_was_open(tmp_path: Path):
    from nightshift.stack.embedded.data_directory import make_private

    tmp_path.chmod(0o755)
    for name in ("run", "blobs", "tokens"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "lock").touch(mode=0o644)

    make_private(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o700, 0o600}


def test_a_directory_that_others_may_write_to_is_refused_and_left_as_it_is(tmp_path: Path):
    (tmp_path / "somebody's file").touch()
    tmp_path.chmod(0o1777)

    with pytest.raises(ConfigurationError, match="other users may write to it"):
        Stack(tmp_path).up(0, dispatcher=False)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_can_read_hold_and_list_nothing(original: Stack, parent_folder: Path):
    parent_folder.chmod(0o755)
    original.data_dir.chmod(0o755)  # as if somebody had opened it
    names = [path.name for path in original.data_dir.iterdir()]
    program = (
        "import fcntl, os, sys\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n"
        "        fcntl.flock(os.open(sys.argv[1] + '/' + name, os.O_RDONLY), fcntl.LOCK_EX)\n"
        "        print(name)\n"
        "    except PermissionError: pass\n"
    )
    try:
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", program, str(original.data_dir), *names],
            user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False,
            cwd="/",
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    finally:
        original.up(0, dispatcher=False)
    assert stat.S_IMODE(original.data_dir.stat().st_mode) == 0o700
