"""`nightshift drill` on an embedded stack that works on a run."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nightshift.cli.main import main
from nightshift.demo import coarse_dir, scorer_dir, write_catalogue
from nightshift.stack import Stack
from nightshift.stack.faults import FAULTS

_DEPTH = 90


@pytest.fixture(scope="module")
def busy() -> Iterator[tuple[Path, int]]:
    """Data directory of a stack with a worker, and the run that it works on."""
    with tempfile.TemporaryDirectory(prefix="ns-drill-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        data, scenes = Path(folder) / "data", Path(folder) / "scenes"
        write_catalogue(scenes, items=96, queries=16)
        try:
            _nightshift(data, "up")
            _nightshift(data, "catalog", "import", "scenes", str(scenes / "items.jsonl"))
            embedder = f"open_clip:{coarse_dir()}"
            _nightshift(data, "index", "build", "scenes", "--embedder", embedder, "--wait")
            done = _nightshift(
                data, "rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"),
                "--scorer", f"hf:{scorer_dir()}", "--top-k", str(_DEPTH), "--json",
            )  # fmt: skip
            yield data, json.loads(done.stdout)["run_id"]
        finally:
            Stack(data).down(grace_s=1)


# The other faults strike in tests/benchmarks/test_chaos.py.
@pytest.mark.timeout(900)
def test_a_drill_breaks_a_live_run_which_then_ends_complete(busy):
    data, run_id = busy

    report = json.loads(_nightshift(data, "drill", "flush-redis", "--json").stdout)
    _nightshift(data, "run", "watch", str(run_id))

    assert (report["fault"], report["run_id"]) == ("flush-redis", run_id)
    assert "keys of Redis with 1 jobs in hand" in report["struck"]
    assert (report["in_hand"], report["open"], report["lost"]) == (1, 0, 0)
    assert report["nothing_lost"]
    assert "is complete" in _nightshift(data, "verify", str(run_id)).stdout
    refused = _nightshift(data, "drill", "kill-worker", check=False)
    assert refused.returncode == 4
    assert "no run is running" in refused.stderr


def test_an_unknown_fault_is_refused_with_the_names_of_all_faults():
    done = CliRunner().invoke(main, ["drill", "kill-everything"])

    assert done.exit_code == 2
    assert all(f"'{fault}'" in done.output for fault in FAULTS)


def test_a_drill_needs_the_embedded_stack(tmp_path):
    done = CliRunner().invoke(main, ["drill", "kill-redis", "--data-dir", str(tmp_path)])

    assert done.exit_code == 2
    assert "nightshift up" in done.output


def _nightshift(data: Path, *arguments: str, check: bool = True):
    done = subprocess.run(
        [sys.executable, "-m", "nightshift.cli.main", *arguments],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NIGHTSHIFT_DATA_DIR": str(data),
            "NIGHTSHIFT_LEASE_S": "5",
            "NIGHTSHIFT_GRACE_S": "5",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr + done.stdout
    return done
