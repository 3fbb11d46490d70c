"""Folders of images, each with an optional caption in a `.txt` of the same stem beside it."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from nightshift.producers.sources.rows import BadRow, RawRow, Row
from nightshift.schema.errors import InputError
from nightshift.stores.addresses import stem_of
from nightshift.stores.files import open_file
from nightshift.stores.listing import ListedFile, walk_files
from nightshift.stores.roots import ImageRoots

__all__ = ["image_rows", "is_image", "read_folder"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_CAPTION_BYTES = 2 * 2**20


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its extension."""
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


def read_folder(address: str) -> Iterator[Row]:
    """Images of a folder and of the folders in it; the id is the path without its extension.

    Raises:
        InputError: `empty_source` where there is none.
    """
    empty = True
    for files in walk_files(address):
        for row in image_rows(files, files, root=address):
            empty = False
            yield row
    if empty:
        raise InputError(
            f"{address} holds no image and no data file; name the folder or file itself",
            "empty_source",
        )


def image_rows(
    files: Iterable[ListedFile], beside: Iterable[ListedFile], *, root: str
) -> Iterator[Row]:
    """Rows of the images among `files`, with captions from `beside` that lie below `root`."""
    roots = ImageRoots([root])
    captions = {stem_of(file.address): file for file in beside if file.name.endswith(".txt")}
    for file in files:
        if not is_image(file.name):
            continue
        caption = captions.get(stem_of(file.address))
        fields: dict[str, str] = {"image": file.address}
        try:
            if caption is not None:
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


def _read_caption(file: ListedFile, roots: ImageRoots) -> str:
    try:
        with open_file(file.address, roots=roots) as raw:
            return raw.read(_CAPTION_BYTES).decode().strip()
    except InputError as error:
        if error.reason != "image_not_allowed":
            raise
        raise InputError(
            f"{file.name} is a link to a file outside the folder; put the caption itself there",
            "caption_not_allowed",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name} is not UTF-8; convert it", "not_utf8") from error
    except OSError as error:
        raise InputError(f"{file.name} cannot be read: {error}", "caption_unreadable") from error
