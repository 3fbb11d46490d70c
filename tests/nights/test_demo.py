"""`nightshift demo` from nothing, as a newcomer runs it, and once more."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nightshift.stack import Stack

pytestmark = [pytest.mark.night, pytest.mark.timeout(1500)]


@dataclass(frozen=True)
class Printed:
    """Output of the demo: for a program the first time and the second, then for a person."""

    first: dict[str, Any]
    second: dict[str, Any]
    person: str


@pytest.fixture(scope="module")
def demo() -> Iterator[Printed]:
    with tempfile.TemporaryDirectory(prefix="ns-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        data, images = Path(folder) / "data", Path(folder) / "images"
        try:
            yield Printed(
                first=json.loads(_demo(data, images, "--json")),
                second=json.loads(_demo(data, images, "--json")),
                person=_demo(data, images),
            )
        finally:
            Stack(data).down(grace_s=1)


def test_fine_scoring_lifts_recall_at_one_by_ten_points_in_both_directions(demo):
    first = demo.first
    for direction in (first, first["image_to_text"]):
        assert direction["fine"]["recall@1"] >= direction["coarse"]["recall@1"] + 0.1
        # Of twenty candidates the first ten hold what nine queries of ten look for.
        assert direction["coarse"]["recall@10"] >= 0.9


def test_the_demo_counts_what_it_did(demo):
    first = demo.first
    assert (first["items"], first["queries"], first["pairs"]) == (2048, 200, 4000)
    assert (first["image_to_text"]["queries"], first["image_to_text"]["pairs"]) == (200, 4000)
    assert first["failed"] == 0
    assert set(first["seconds"]) == {"import", "index", "rerank"}


def test_running_it_again_is_safe_and_finds_the_same(demo):
    passing = {"seconds", "run_id"}
    for entry in (demo.first, demo.second):
        entry["enhancement"].pop("run_id")
    runs = (demo.first, demo.second)
    first, repeated = ({k: v for k, v in facts.items() if k not in passing} for facts in runs)
    assert repeated == first


def test_the_enhancement_fires_on_the_share_that_it_is_given_and_says_what_it_changed(demo):
    reported = demo.first["enhancement"]
    assert reported["published_firing_share"] < 0.05
    assert reported["firing_share"] == pytest.approx(0.2, abs=0.02)
    before, after = (demo.first["fine"], reported["fine"])
    for name, value in before.items():
        assert f"{name} {value:.3f} → {after[name]:.3f}" in " ".join(demo.person.split())


def test_a_person_is_shown_recall_and_a_few_rankings_with_both_orders_beside_each_other(demo):
    recalls = [line.split()[2:5] for line in demo.person.splitlines() if "-to-" in line[:14]]
    for direction in (demo.first, demo.first["image_to_text"]):
        for order in ("coarse", "fine"):
            assert [f"{value:.3f}" for value in direction[order].values()] in recalls
    assert len(re.findall("coarse search +fine scoring", demo.person)) == 3
    assert len(re.findall(r"text-to-image, query text-\d+, ", demo.person)) == 2
    assert len(re.findall(r"image-to-text, query image-\d+, ", demo.person)) == 1


def _demo(data: Path, image_folder: Path, *options: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "nightshift.cli.main",
            "demo",
            "--output",
            str(image_folder),
            *options,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NIGHTSHIFT_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        timeout=700,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in image_folder.glob("*.png")} == {
        "text-to-image.png",
        "image-to-text.png",
    }
    return done.stdout
