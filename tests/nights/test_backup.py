"""A backup that is made while runs go on, and the stack that comes of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from nightshift.stack import Stack
from nightshift.stores.postgres.database import Database

pytestmark = [pytest.mark.night, pytest.mark.timeout(1200)]


@pytest.fixture
def parent_folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="ns-night-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _cli(data_dir: Path, *words: str) -> Any:
    return json.loads(_text(data_dir, *words, "--json"))


def _text(data_dir: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nightshift.cli.main", *words],
        env={**os.environ, "NIGHTSHIFT_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _embed_jobs(data_dir: Path) -> int:
    with Database(Stack(data_dir).urls().database_url) as database, database.begin() as connection:
        return connection.execute(
            text("SELECT count(*) FROM job WHERE stage = 'embed'")
        ).scalar_one()


def _parquet(scenes: Path, file: Path) -> None:
    """The catalogue with its images in the cells, which are kept as blobs."""
    rows = [json.loads(line) for line in (scenes / "items.jsonl").read_text().splitlines()[:24]]
    images = [{"bytes": (scenes / row["image"]).read_bytes(), "path": None} for row in rows]
    table = {"id": [row["id"] for row in rows], "image": images}
    pq.write_table(pa.table(table), file)


def test_a_run_in_progress_is_backed_up_and_ends_in_the_restored_stack(
    parent_folder: Path, scenes: Path, embedder: str, scorer: str
):
    first, second = parent_folder / "first", parent_folder / "second"
    _parquet(scenes, parent_folder / "items.parquet")
    rerank = ("rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"))
    rerank = (*rerank, "--scorer", scorer, "--top-k", "4")
    try:
        _cli(first, "up")
        _cli(first, "catalog", "import", "scenes", str(parent_folder / "items.parquet"))
        _cli(first, "index", "build", "scenes", "--embedder", embedder, "--wait")
        done = _cli(first, *rerank, "--wait")["run_id"]
        under_way = _cli(first, *rerank, "--preset", "code")["run_id"]

        _cli(first, "backup", str(parent_folder / "backup"))

        before = _cli(first, "verify", str(done))
        embedded = _embed_jobs(first)
        ranked = _text(first, "results", str(done), "--format", "jsonl")
        Stack(first).down()
        # What the second reads must be its own.
        first.rename(parent_folder / "gone")
        _cli(second, "restore", str(parent_folder / "backup"))
        _cli(second, "up")

        assert _cli(second, "verify", str(done)) == before
        assert before["complete"] is True
        assert _text(second, "results", str(done), "--format", "jsonl") == ranked
        _cli(second, "run", "watch", str(under_way))
        assert _cli(second, "verify", str(under_way))["complete"] is True
        repeated = _cli(second, *rerank, "--wait")["run_id"]
        assert _cli(second, "verify", str(repeated))["complete"] is True
        # Nothing was embedded again: the vectors came with the backup.
        assert _embed_jobs(second) == embedded
    finally:
        Stack(parent_folder / "gone" if (parent_folder / "gone").exists() else first).down(0)
        Stack(second).down(0)
