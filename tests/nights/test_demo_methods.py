"""`nightshift demo --method freeret` and `indexmllm`: what they find, printed beside RetLLM's."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightshift.stack import Stack

pytestmark = [pytest.mark.night, pytest.mark.timeout(2400)]

_ROW = re.compile(r"(\w+-to-\w+) +(coarse|\w+) +([01]\.\d{3}) +([01]\.\d{3}) +([01]\.\d{3}) +(\d+)")


@dataclass(frozen=True)
class Row:
    """One line of the table of recalls."""

    direction: str
    order: str
    #: At 1, 5 and 10; success at 1 and 5 and mAP where several items are relevant.
    recall: tuple[float, ...]
    run_id: int


@pytest.fixture(scope="module")
def tables() -> Iterator[dict[str, list[Row]]]:
    """The table that each method's demo prints, the second over the catalogue of the first."""
    with tempfile.TemporaryDirectory(prefix="ns-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        data = Path(folder) / "data"
        try:
            yield {
                method: _rows(_demo(method, data, Path(folder) / method))
                for method in ("freeret", "indexmllm")
            }
        finally:
            Stack(data).down(grace_s=1)


@pytest.mark.parametrize(
    ("method", "shown_on", "gains_at"),
    [
        ("freeret", ["text-to-image", "image-to-text"], 0),
        # Several images are relevant: the third number is mAP there.
        ("indexmllm", ["image-to-image"], 2),
    ],
)
def test_a_method_stands_beside_retllm_in_each_direction_that_it_is_shown_on(
    tables, method, shown_on, gains_at
):
    rows = tables[method]
    assert [row.direction for row in rows if row.order == method] == shown_on
    for direction in shown_on:
        of_direction = [row for row in rows if row.direction == direction]
        assert [row.order for row in of_direction] == ["coarse", "retllm", "coarse", method]
        (before, _, repeated, fine) = of_direction
        assert before.recall == repeated.recall, "both order the same candidates"
        assert fine.recall[gains_at] > before.recall[gains_at], "more than the coarse search found"


def test_retllm_finds_the_same_whoever_stands_beside_it(tables):
    of_retllm = [
        {row.direction: row.recall for row in tables[method] if row.order == "retllm"}
        for method in ("freeret", "indexmllm")
    ]
    assert of_retllm[0].items() <= of_retllm[1].items()


def _rows(printed: str) -> list[Row]:
    return [
        Row(
            direction=direction,
            order=order,
            recall=tuple(map(float, recalls)),
            run_id=int(run_id),
        )
        for direction, order, *recalls, run_id in _ROW.findall(printed)
    ]


def _demo(method: str, data: Path, image_folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nightshift.cli.main", "demo", "--method", method, "--output",
         str(image_folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NIGHTSHIFT_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert any(path.name.endswith(f"-{method}.png") for path in image_folder.iterdir())
    return done.stdout
