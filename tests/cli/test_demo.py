"""`nightshift demo` from nothing, as a newcomer runs it, and once more."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshift.stores.embedded import Stack

pytestmark = [pytest.mark.night, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def demo() -> Iterator[list[dict[str, object]]]:
    """What it printed the first time and the second."""
    with tempfile.TemporaryDirectory(prefix="ns-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        data = Path(folder) / "data"
        try:
            yield [_demo(data, Path(folder) / "pictures") for _ in range(2)]
        finally:
            Stack(data).down(grace_s=1)


def test_fine_scoring_lifts_recall_at_one_by_ten_points_in_both_directions(demo):
    first = demo[0]
    for direction in (first, first["image_to_text"]):
        assert direction["fine"]["recall@1"] >= direction["coarse"]["recall@1"] + 0.1
        # Of twenty candidates the first ten hold what nine queries of ten look for.
        assert direction["coarse"]["recall@10"] >= 0.9


def test_the_demo_counts_what_it_did(demo):
    first = demo[0]
    assert (first["items"], first["queries"], first["pairs"]) == (2048, 200, 4000)
    assert (first["image_to_text"]["queries"], first["image_to_text"]["pairs"]) == (200, 4000)
    assert first["failed"] == 0
    assert set(first["seconds"]) == {"import", "index", "rerank"}


def test_running_it_again_is_safe_and_finds_the_same(demo):
    passing = {"seconds", "run_id"}
    first, again = ({k: v for k, v in facts.items() if k not in passing} for facts in demo)
    assert again == first


def _demo(data: Path, pictures: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "nightshift.cli.main", "demo", "--json", "--output", str(pictures)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NIGHTSHIFT_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        timeout=700,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in pictures.glob("*.png")} == {
        "text-to-image.png",
        "image-to-text.png",
    }
    facts: dict[str, object] = json.loads(done.stdout)
    return facts
