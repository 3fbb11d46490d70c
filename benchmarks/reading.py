"""From photographs to what an embedder takes of them: how a worker reads, against a DataLoader."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import click
import numpy as np
import open_clip
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nightshift.demo.paths import coarse_dir
from nightshift.models.embedders.protocol import Embedder
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_embedder
from nightshift.schema.errors import InputError
from nightshift.schema.identity import ContentHashes
from nightshift.schema.params import Kinds
from nightshift.schema.records import ImagePart
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.workers.contents import Readers, ahead, chunks, read_contents

_MICRO_BATCH = 32
_IMAGE: Kinds = frozenset({"image"})


@click.command()
@click.option("--images", default=64, show_default=True)
@click.option("--width", default=4000, show_default=True, help="Of an image; its height is 3/4.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(images: int, width: int, rounds: int, as_json: bool) -> None:
    """Read IMAGES photographs in both ways, in turns; no model runs."""
    embedder = load_embedder(f"open_clip:{coarse_dir()}", device="cpu")
    _, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{coarse_dir()}", load_weights=False
    )
    with tempfile.TemporaryDirectory(prefix="ns-") as folder:
        paths = [_photograph(Path(folder) / f"{n}.jpg", n, width) for n in range(images)]
        loader, worker = [], []
        for _ in range(rounds):
            loader.append(images / _seconds(_by_data_loader(paths, transform)))
            worker.append(images / _seconds(_by_worker(paths, embedder)))
    facts = {
        "pictures": images,
        "megapixels": round(width * width * 3 / 4 / 1e6, 1),
        "cores": len(os.sched_getaffinity(0)),
        "data_loader_per_s": round(median(loader), 1),
        "worker_per_s": round(median(worker), 1),
        "ratio": round(median(worker) / median(loader), 2),
    }
    if as_json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            print(f"{name:20} {value}")


class _Photographs(Dataset[Tensor]):
    """Reads as a careful user would: each image decoded and transformed in a process of its own."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self._paths = paths
        self._transform = transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self._paths[place]) as image:
            return self._transform(image.convert("RGB"))


def _by_data_loader(
    paths: Sequence[Path], transform: Callable[[Image.Image], Tensor]
) -> Iterator[object]:
    return iter(
        DataLoader(
            _Photographs(paths, transform),
            batch_size=_MICRO_BATCH,
            num_workers=len(os.sched_getaffinity(0)),
        )
    )


def _by_worker(paths: Sequence[Path], embedder: Embedder) -> Iterator[object]:
    """As an embed job reads its items."""
    nothing = ContentHashes(text=None, image=None, both=b"")
    records = [
        StoredRecord(id=n, external_id=path.name, parts=(ImagePart(uri=str(path)),), hashes=nothing)
        for n, path in enumerate(paths)
    ]

    def prepare(batch: Sequence[StoredRecord], readers: Readers) -> object:
        contents = read_contents(batch, _IMAGE, readers, embedder.prepare_image)
        return embedder.prepare([_good(content) for content in contents], "candidate")

    return ahead(chunks(records, _MICRO_BATCH), prepare)


def _good(content: ItemContent | InputError) -> ItemContent:
    if isinstance(content, InputError):
        raise content
    return content


def _seconds(batches: Iterator[object]) -> float:
    start = perf_counter()
    for _ in batches:
        pass
    return perf_counter() - start


def _photograph(path: Path, number: int, width: int) -> Path:
    """As hard to decode as a photograph: structure of all sizes, and the grain of a sensor."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
    image = np.asarray(coarse.resize((width, width * 3 // 4), Image.Resampling.BICUBIC))
    grain = random.integers(-8, 9, image.shape[:2], np.int16)[..., None]
    Image.fromarray(np.clip(image + grain, 0, 255).astype(np.uint8)).save(path, quality=88)
    return path


if __name__ == "__main__":
    main()
