"""Reading ahead of the model: in order, so far and no further, and never past an error."""

import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Semaphore
from time import sleep

import pytest
import torch
from PIL import Image

from nightshift.models.devices import cores
from nightshift.models.inputs.images import PreparedImage
from nightshift.schema.errors import InputError
from nightshift.schema.identity import ContentHashes
from nightshift.schema.records import ImagePart
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.workers.contents import Readers, ahead, open_readers, read_contents


class Reader:
    """Remembers what it was asked to prepare."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.done = Semaphore(0)

    def prepare(self, batch: int, _readers: Readers) -> str:
        self.begun.append(batch)
        if batch < 0:
            raise ValueError(f"batch {batch} is broken")
        self.done.release()
        return f"prepared {batch}"

    def ahead(self, batches: Iterable[int]) -> Iterable[str]:
        return ahead(batches, self.prepare, depth=2)


def test_batches_come_in_the_order_of_the_job() -> None:
    assert list(Reader().ahead(range(9))) == [f"prepared {i}" for i in range(9)]


def test_while_the_model_is_busy_with_a_batch_the_next_two_are_read_and_no_more() -> None:
    reader = Reader()
    batches = iter(reader.ahead(range(9)))

    next(batches)  # with the model now

    assert all(reader.done.acquire(timeout=120) for _ in range(3))
    assert sorted(reader.begun) == [0, 1, 2]
    next(batches)
    assert reader.done.acquire(timeout=120)
    assert sorted(reader.begun) == [0, 1, 2, 3]


def test_an_error_comes_in_its_batchs_turn_and_ends_the_reading() -> None:
    reader = Reader()
    batches = iter(reader.ahead([0, 1, -1, *range(3, 9)]))

    assert [next(batches), next(batches)] == ["prepared 0", "prepared 1"]
    with pytest.raises(ValueError, match="batch -1 is broken"):
        next(batches)
    assert {0, 1, -1} <= set(reader.begun)
    assert len(reader.begun) <= 5


class Preparer:
    """Prepares images slowly, and remembers how many decoded ones were in memory."""

    def __init__(self) -> None:
        self.decoded: list[weakref.ref[Image.Image]] = []
        self.max_in_memory = 0

    def __call__(self, image: Image.Image) -> PreparedImage:
        self.decoded.append(weakref.ref(image))
        self.max_in_memory = max(self.max_in_memory, self.in_memory())
        sleep(0.02)
        if image.width == 1:
            raise InputError("too narrow", "image_shape")
        return PreparedImage()

    def in_memory(self) -> int:
        return sum(entry() is not None for entry in self.decoded)


def records(folder: Path, widths: Iterable[int]) -> list[StoredRecord]:
    results = []
    for number, width in enumerate(widths):
        path = folder / f"{number}.png"
        Image.new("RGB", (width, 8), (number, 0, 0)).save(path)
        results.append(
            StoredRecord(
                id=number,
                external_id=str(number),
                parts=(ImagePart(uri=str(path)),),
                hashes=ContentHashes(text=None, image=b"", both=b""),
            )
        )
    return results


def test_as_many_decoded_images_are_in_memory_as_there_are_cores_and_none_after(
    tmp_path: Path,
) -> None:
    prepare = Preparer()

    with open_readers() as readers:
        contents = read_contents(
            records(tmp_path, [8] * 24), frozenset({"image"}), readers, prepare
        )

    assert len(contents) == len(prepare.decoded) == 24
    assert 1 <= prepare.max_in_memory <= cores()
    assert prepare.in_memory() == 0


def test_an_image_that_cannot_be_prepared_is_named_and_costs_no_other(tmp_path: Path) -> None:
    prepare = Preparer()

    with open_readers() as readers:
        contents = read_contents(
            records(tmp_path, [8, 1, 8]), frozenset({"image"}), readers, prepare
        )

    (good, bad, also_good) = contents
    assert isinstance(bad, InputError)
    assert (bad.message, bad.reason) == (f"{tmp_path / '1.png'}: too narrow", "image_shape")
    assert not isinstance(good, InputError)
    assert not isinstance(also_good, InputError)
    assert prepare.in_memory() == 0, "the error holds on to what it was about"


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_decoder_computes_on_one_core_and_the_model_on_as_many_as_before() -> None:
    with open_readers() as readers:
        of_decoder = readers.decoding.submit(cores).result()

    assert (of_decoder, cores()) == (1, 2)
