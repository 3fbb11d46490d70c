"""Read the contents of records for a model: images are fetched and prepared ahead of it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from nightshift.models.devices import cores, use_one_core
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.models.inputs.content import ItemContent
from nightshift.models.inputs.images import PreparedImage
from nightshift.schema.errors import InputError
from nightshift.schema.params import Kinds
from nightshift.schema.records import ImagePart, TextPart, select_parts
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.stores.files.images import decoded, fetch_image

__all__ = [
    "Readers",
    "Stored",
    "ahead",
    "chunks",
    "open_readers",
    "prepared",
    "read_content",
    "read_contents",
]

_In = TypeVar("_In")
_Out = TypeVar("_Out")

# Beside those that wait for a decoder.
_FETCHING = 16
#: Bytes a pixel that the image processors of transformers take beside the image, measured.
_BESIDE = 12

#: Prepares a decoded image for one model.
_PrepareImage = Callable[[Image.Image], PreparedImage]
#: Visual tokens of a record's images from an earlier run; none where there are none.
Stored = Callable[[StoredRecord], tuple[StoredVisualTokens, ...]]


@dataclass(frozen=True, slots=True)
class Readers:
    """The threads that read for one job."""

    #: Wait for disks and networks.
    fetching: ThreadPoolExecutor
    #: Compute, on a core each: a decoded photograph is far larger than what a model takes of it.
    decoding: ThreadPoolExecutor


@contextmanager
def open_readers() -> Iterator[Readers]:
    """Threads that are gone at the end, as many as this worker's share of the cores is worth."""
    n = cores()
    with (
        ThreadPoolExecutor(n, "decode", initializer=use_one_core) as decoding,
        ThreadPoolExecutor(_FETCHING + n, "fetch") as fetching,
    ):
        yield Readers(fetching, decoding)


def read_content(
    record: StoredRecord,
    kinds: Kinds,
    readers: Readers,
    prepare_image: _PrepareImage,
    stored: Stored | None = None,
) -> ItemContent:
    """Read the selected parts of a record, and no others.

    Args:
        record: An item or a query.
        kinds: The parts.
        readers: Whose decoders to use.
        prepare_image: Of the model that will be shown them.
        stored: Gives visual tokens in place of images where it has any.

    Raises:
        InputError: When an image cannot be read or resized, or no part is left.
    """
    parts = select_parts(record.parts, kinds)
    if not parts:
        raise InputError(
            f"{record.external_id!r} has no {' or '.join(sorted(kinds))} for the model to see",
            "nothing_to_see",
            record.external_id,
        )
    texts = tuple(part.text for part in parts if isinstance(part, TextPart))
    if stored is not None and "image" in kinds and (tokens := stored(record)):
        return ItemContent(texts=texts, stored=tokens)
    return ItemContent(
        texts=texts,
        images=tuple(
            _prepared(part, readers, prepare_image)
            for part in parts
            if not isinstance(part, TextPart)
        ),
    )


def read_contents(
    records: Sequence[StoredRecord],
    kinds: Kinds,
    readers: Readers,
    prepare_image: _PrepareImage,
    stored: Stored | None = None,
) -> list[ItemContent | InputError]:
    """Contents in order; a bad record yields its error, and its neighbours go on."""

    def read(record: StoredRecord) -> ItemContent | InputError:
        try:
            return read_content(record, kinds, readers, prepare_image, stored)
        except InputError as error:
            # A new error: the raised one holds the decoded image by its traceback.
            return InputError(error.message, error.reason, error.subject_id)

    return list(readers.fetching.map(read, records))


def prepared(
    prepare: Callable[[Sequence[_In]], _Out], read: Sequence[_In]
) -> _Out | InputError | None:
    """The model's batch for these contents, or its error; None if the list is empty."""
    if not read:
        return None
    try:
        return prepare(read)
    except InputError as error:
        return error


def ahead(
    batches: Iterable[_In],
    prepare: Callable[[_In, Readers], _Out],
    *,
    depth: int = 2,
) -> Iterator[_Out]:
    """Prepare batches in threads, `depth` ahead of the consumer, in order.

    Args:
        batches: What to prepare.
        prepare: Runs in a thread, beside that of another batch, so that no core waits for the last
            image of one; gets the threads that read.
        depth: How many prepared batches may wait.
    """
    with open_readers() as readers, ThreadPoolExecutor(depth, "ahead") as runner:
        waiting: deque[Future[_Out]] = deque()
        try:
            for batch in batches:
                waiting.append(runner.submit(prepare, batch, readers))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def chunks(values: Sequence[_In], size: int) -> list[Sequence[_In]]:
    """Micro-batches: a pure function of the job, so that a rerun computes the same numbers."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def _prepared(part: ImagePart, readers: Readers, prepare_image: _PrepareImage) -> PreparedImage:
    data = fetch_image(part.uri, sha256=part.sha256)

    def prepare() -> PreparedImage:
        with decoded(data, part.uri, beside=_BESIDE) as image:
            try:
                return prepare_image(image)
            except InputError as error:
                raise InputError(f"{part.uri}: {error.message}", error.reason) from error

    return readers.decoding.submit(prepare).result()
