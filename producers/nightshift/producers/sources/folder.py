"""Folders of images, each with an optional caption in a `.txt` of the same stem beside it.

In a folder with a `metadata.jsonl` or `.csv`, the images that its rows name by `file_name` are the
items (the layout of Hugging Face's imagefolder), also where that folder lies below the source.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain

from nightshift.producers.sources.readers import describes_images, read_data
from nightshift.producers.sources.rows import BadRow, RawRow, Row, contained
from nightshift.producers.sources.skipped_files import SkippedFiles
from nightshift.producers.sources.text_checks import decoded_text
from nightshift.schema.errors import InputError
from nightshift.stores.files.addresses import resolve_beside, stem_of
from nightshift.stores.files.files import open_file
from nightshift.stores.files.globs import ListedFile, walk_files
from nightshift.stores.files.image_formats import is_image_name
from nightshift.stores.files.roots import ImageRoots

__all__ = ["described_rows", "image_rows", "read_folder"]

_CAPTION_BYTES = 2 * 2**20


def read_folder(address: str, skipped: SkippedFiles) -> Iterator[Row]:
    """Images of a folder and of the folders in it; the id is the path without its extension.

    Raises:
        InputError: `empty_source` where there is none.
    """
    empty = True
    described: list[_Described] = []
    for files in walk_files(address):
        if not files:
            continue
        while described and not described[-1].covers(files[0]):
            described.pop()
        for file in files:
            rows = described_rows(file, skipped)
            if rows is not None:
                described.append(_Described(file))
                empty = False
                yield from described[-1].rows(rows)
                break
        if described:
            described[-1].leave_out(files, skipped)
            continue
        for row in image_rows(files, files, root=address, skipped=skipped):
            empty = False
            yield row
    if empty:
        reason = skipped.message()
        raise InputError(
            f"{address} holds no image and no data file; name the folder or file itself"
            + (f". {reason}" if reason else ""),
            "empty_source",
        )


def described_rows(file: ListedFile, skipped: SkippedFiles) -> Iterator[Row] | None:
    """The rows of a file that names the images of its folder; None of any other file."""
    if not describes_images(file.name):
        return None
    rows = contained(file.name, read_data(file, skipped))
    first = next(rows, None)
    if first is None or (isinstance(first, RawRow) and "image" not in first.fields):
        return None
    return chain((first,), rows)


def image_rows(
    files: Iterable[ListedFile],
    beside: Iterable[ListedFile],
    *,
    root: str,
    skipped: SkippedFiles,
) -> Iterator[Row]:
    """Rows of the images among `files`, with captions from `beside` that lie below `root`."""
    roots = ImageRoots([root])
    captions = {stem_of(file.address): file for file in beside if _is_caption(file.name)}
    used: set[str] = set()
    others: list[ListedFile] = []
    for file in files:
        if not is_image_name(file.name):
            others.append(file)
            continue
        caption = captions.get(stem_of(file.address))
        fields: dict[str, str] = {"image": file.address}
        try:
            if caption is not None:
                used.add(caption.address)
                fields["text"] = _read_caption(caption, roots)
        except InputError as error:
            yield BadRow(
                position=file.name,
                reason=error.reason,
                message=error.message,
                default_id=stem_of(file.name),
            )
        else:
            yield RawRow(
                position=file.name, fields=fields, folder=file.folder, default_id=stem_of(file.name)
            )
    for file in others:
        if file.address not in used:
            skipped.add(file.name)


@dataclass(slots=True)
class _Described:
    """A folder whose images a file names."""

    file: ListedFile
    #: Of the addresses that were named: one that is not is left out, and said to be.
    _named: set[bytes] = field(default_factory=set)

    def covers(self, other: ListedFile) -> bool:
        """Tells whether a file lies in this folder or below it."""
        return f"{other.folder}/".startswith(f"{self.file.folder}/")

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, with ids that begin with this folder's path."""
        folder = self.file.name.rpartition("/")[0]
        for row in rows:
            image = row.fields.get("image") if isinstance(row, RawRow) else None
            if isinstance(row, RawRow) and isinstance(image, str):
                self._named.add(_digest(row.folder, image))
                if folder and row.default_id:
                    yield replace(row, default_id=f"{folder}/{row.default_id}")
                    continue
            yield row

    def leave_out(self, files: Iterable[ListedFile], skipped: SkippedFiles) -> None:
        """Count the files that no row names."""
        for file in files:
            if file.address == self.file.address:
                continue
            if _digest(file.folder, file.address.rpartition("/")[2]) not in self._named:
                image = is_image_name(file.name)
                skipped.add(file.name, "that no row of the metadata names" if image else "")


def _digest(folder: str, path: str) -> bytes:
    address = resolve_beside(folder, path)
    return blake2b(address.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _is_caption(name: str) -> bool:
    return name.lower().endswith(".txt")


def _read_caption(file: ListedFile, roots: ImageRoots) -> str:
    try:
        with open_file(file.address, roots=roots) as raw:
            data = raw.read(_CAPTION_BYTES + 1)
    except InputError as error:
        if error.reason != "image_not_allowed":
            raise
        raise InputError(
            f"{file.name} is a link to a file outside the folder; put the caption itself there",
            "caption_not_allowed",
        ) from error
    except OSError as error:
        raise InputError(f"{file.name} cannot be read: {error}", "caption_unreadable") from error
    if len(data) > _CAPTION_BYTES:
        raise InputError(
            f"{file.name} has over {_CAPTION_BYTES >> 20} MiB; shorten it", "text_too_long"
        )
    return decoded_text(file.name, data)
