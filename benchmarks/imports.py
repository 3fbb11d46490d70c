"""Imports of what an earlier import has read: texts, and photographs of 12 megapixels."""

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import click
import numpy as np
from PIL import Image

from benchmarks.cpu_meter import CpuMeter
from nightshift import api
from nightshift.cli.embedded_stack import open_stack

_WIDTH, _HEIGHT = 4000, 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """CPU seconds of a first and of a second import of the same rows."""

    rows: str
    count: int
    first_cpu_s: float
    second_cpu_s: float
    #: First over second.
    ratio: float


@click.command()
@click.option("--texts", default=20_000, show_default=True)
@click.option("--photographs", default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(texts: int, photographs: int, as_json: bool) -> None:
    """Import TEXTS rows of text and PHOTOGRAPHS twice each, in CPU seconds of all processes."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        stack = open_stack(folder / "stack")
        try:
            stack.up(0, dispatcher=False)
            meter = CpuMeter(stack)
            with api.connect(folder / "stack") as ns:
                rows = [
                    _measure(ns, meter, "texts", _write_texts(folder, texts), texts),
                    _measure(ns, meter, "photographs", _draw(folder, photographs), photographs),
                ]
        finally:
            stack.down()
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        print(" ".join(f"{name}={value}" for name, value in asdict(row).items()))


def _measure(ns: api.Nightshift, meter: CpuMeter, name: str, source: Path, count: int) -> Row:
    seconds = []
    for number in range(2):
        before = meter.seconds()
        summary = ns.import_catalog(name, str(source))
        seconds.append(meter.seconds() - before)
        assert (summary.accepted, summary.unchanged)[number] == count, summary
    return Row(
        rows=name,
        count=count,
        first_cpu_s=round(seconds[0], 2),
        second_cpu_s=round(seconds[1], 2),
        ratio=round(seconds[0] / seconds[1], 2),
    )


def _write_texts(folder: Path, count: int) -> Path:
    path = folder / "texts.jsonl"
    rng = Random(0)
    words = [f"word{number}" for number in range(2000)]
    with path.open("w") as file:
        for number in range(count):
            row = {
                "id": f"item-{number:08d}",
                "text": " ".join(rng.choices(words, k=40)),
                "price": number % 1000,
                "brand": f"brand {number % 97}",
            }
            file.write(json.dumps(row) + "\n")
    return path


def _draw(folder: Path, count: int) -> Path:
    photographs = folder / "photographs"
    photographs.mkdir()
    then = time.time() - 60
    for number in range(count):
        rng = np.random.default_rng(number)
        small = rng.integers(0, 255, (_HEIGHT // 50, _WIDTH // 50, 3), dtype=np.uint8)
        path = photographs / f"{number:04d}.jpg"
        Image.fromarray(small).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC).save(path)
        os.utime(path, (then, then))
    return photographs


if __name__ == "__main__":
    main()
