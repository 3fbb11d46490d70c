"""Open a source: detect its formats and read its rows."""

from collections.abc import Iterator
from itertools import groupby, islice

from nightshift.producers.sources.folder import described_rows, image_rows, read_folder
from nightshift.producers.sources.readers import is_data, read_data
from nightshift.producers.sources.rows import Row, contained
from nightshift.producers.sources.skipped_files import SkippedFiles
from nightshift.schema.errors import ConfigurationError, NightshiftError
from nightshift.stores.files.addresses import stem_of, without_password
from nightshift.stores.files.globs import (
    ListedFile,
    find_file,
    glob_files,
    list_folder,
    walk_files,
)
from nightshift.stores.files.image_formats import is_image_name
from nightshift.stores.files.packed_formats import packed_format_by_suffix

__all__ = ["open_source"]

_FORMATS = ".jsonl, .jsonl.gz, .csv, .tsv (both also .gz), .parquet, .tar, and images"
#: Extension → remedy for a file that is not read; packed formats have theirs in `packed_formats`.
_REMEDIES = {
    ".json": "write one object a line into a .jsonl file: `jq -c '.[]' OLD > NEW.jsonl`",
    ".txt": "call it .tsv or .csv if its lines have columns, else write .jsonl",
    ".gz": "unpack it: of what is packed, .jsonl.gz, .csv.gz and .tsv.gz are read",
    ".tgz": "unpack it to a .tar, so that its images can be found again by their place",
}
#: The most subfolders of a folder of data files that are searched for more data files.
_MAX_SUBFOLDERS = 1000


def open_source(source: str, skipped: SkippedFiles | None = None) -> Iterator[Row]:
    """Detect the format of a source and read it, one file after another.

    In a folder that holds data files, these are read in the order of their names; any other folder
    is read as images. A damaged file ends with a `BadRow`, and the next file is read.

    Args:
        source: A file, a folder or a glob pattern, as a path or any fsspec URL.
        skipped: Counts the files that no reader takes; complete once the rows are read.

    Raises:
        NotFoundError: When there is no such source.
        ConfigurationError: When no file of it has a known format.
    """
    skipped = SkippedFiles() if skipped is None else skipped
    files = glob_files(source)
    if files is None:
        file = find_file(source)
        if file is None:
            return _open_folder(source, skipped)
        files = [file]
    known = [file for file in files if is_data(file.name) or is_image_name(file.name)]
    if not known:
        shown = without_password(source)
        remedy = _remedy(files[0].name)
        raise ConfigurationError(
            f"{shown} is of no known format"
            + (f": {remedy}" if remedy else "")
            + f"; these are read: {_FORMATS}"
        )
    _count_skipped(files, known, skipped)
    return _read_all(known, skipped)


def _remedy(name: str) -> str:
    """Advice for a file of an unknown format; empty if nothing is known about it."""
    suffix = f".{name.lower().rpartition('.')[2]}"
    packed = packed_format_by_suffix(suffix)
    return packed.remedy if packed is not None else _REMEDIES.get(suffix, "")


def _open_folder(source: str, skipped: SkippedFiles) -> Iterator[Row]:
    files = list_folder(source)
    data = [file for file in files if is_data(file.name)]
    if all(described_rows(file, SkippedFiles()) is not None for file in data):
        return contained(source, read_folder(source, skipped))
    return _read_data_folder(source, files, data, skipped)


def _read_data_folder(
    source: str, files: list[ListedFile], data: list[ListedFile], skipped: SkippedFiles
) -> Iterator[Row]:
    yield from _read_all(data, skipped)
    # Images lie beside the rows that name them.
    _count_skipped([file for file in files if not is_image_name(file.name)], data, skipped)
    try:
        for below in islice(walk_files(source), 1, _MAX_SUBFOLDERS):
            for file in below:
                if is_data(file.name):
                    skipped.add(file.name, "in a folder below that of the data files")
    except NightshiftError:
        return  # a subfolder that may not be listed is not part of the source


def _read_all(files: list[ListedFile], skipped: SkippedFiles) -> Iterator[Row]:
    for (folder, images), together in groupby(files, lambda f: (f.folder, is_image_name(f.name))):
        if images:
            yield from contained(folder, _read_images(folder, list(together), skipped))
        else:
            for file in together:
                yield from contained(file.name, read_data(file, skipped))


def _read_images(folder: str, files: list[ListedFile], skipped: SkippedFiles) -> Iterator[Row]:
    yield from image_rows(files, list_folder(folder), root=folder, skipped=skipped)


def _count_skipped(files: list[ListedFile], known: list[ListedFile], skipped: SkippedFiles) -> None:
    read = {file.address for file in known}
    captioned = {stem_of(file.address) for file in known if is_image_name(file.name)}
    for file in files:
        is_caption = file.name.lower().endswith(".txt") and stem_of(file.address) in captioned
        if file.address not in read and not is_caption:
            skipped.add(file.name)
