"""From what the operator names to the rows in it."""

from collections.abc import Iterator
from itertools import groupby

from nightshift.producers.sources.delimited import read_delimited
from nightshift.producers.sources.folder import image_rows, is_image, read_folder
from nightshift.producers.sources.jsonl import read_jsonl
from nightshift.producers.sources.parquet import read_parquet
from nightshift.producers.sources.rows import Row, contained
from nightshift.producers.sources.webdataset import read_webdataset
from nightshift.schema.errors import ConfigurationError
from nightshift.stores.listing import ListedFile, find_file, glob_files, list_folder

__all__ = ["open_source"]

_FORMATS = ".jsonl, .jsonl.gz, .csv, .tsv (both also .gz), .parquet, .tar, and images"


def open_source(source: str) -> Iterator[Row]:
    """Find out what a source is and read it, one file after another.

    A folder with data files at its top is read as these, in the order of their names; any other
    folder as images. A file that breaks off ends with a `BadRow`, and the next one is read.

    Args:
        source: A file, a folder or a glob pattern, as a path or any fsspec URL.

    Raises:
        NotFoundError: Where there is nothing.
        ConfigurationError: Where nothing of it has a known format.
    """
    files = glob_files(source)
    if files is None:
        file = find_file(source)
        files = [file] if file else [f for f in list_folder(source) if _is_data(f.name)]
        if not files:
            return contained(source, read_folder(source))
    known = [file for file in files if _is_data(file.name) or is_image(file.name)]
    if not known:
        raise ConfigurationError(f"{source} is of no known format; these are read: {_FORMATS}")
    return _read_all(known)


def _read_all(files: list[ListedFile]) -> Iterator[Row]:
    for (folder, images), together in groupby(files, lambda f: (f.folder, is_image(f.name))):
        if images:
            yield from contained(folder, _read_images(folder, list(together)))
        else:
            for file in together:
                yield from contained(file.name, _read(file))


def _read_images(folder: str, files: list[ListedFile]) -> Iterator[Row]:
    yield from image_rows(files, list_folder(folder), root=folder)


def _is_data(name: str) -> bool:
    plain = name.lower().removesuffix(".gz")
    if plain.endswith((".parquet", ".pq", ".tar")):
        return plain == name.lower()
    return plain.endswith((".jsonl", ".ndjson", ".csv", ".tsv"))


def _read(file: ListedFile) -> Iterator[Row]:
    plain = file.name.lower().removesuffix(".gz")
    if plain.endswith(".csv"):
        return read_delimited(file, ",")
    if plain.endswith(".tsv"):
        return read_delimited(file, "\t")
    if plain.endswith(".tar"):
        return read_webdataset(file)
    if plain.endswith((".parquet", ".pq")):
        return read_parquet(file)
    return read_jsonl(file)
