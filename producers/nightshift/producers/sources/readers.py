"""Which reader a data file has, by its name."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from nightshift.producers.sources.delimited import read_delimited
from nightshift.producers.sources.jsonl import read_jsonl
from nightshift.producers.sources.parquet import read_parquet
from nightshift.producers.sources.rows import RawRow, Row
from nightshift.producers.sources.skipped_files import SkippedFiles
from nightshift.producers.sources.webdataset import read_webdataset
from nightshift.stores.files.addresses import stem_of
from nightshift.stores.files.globs import ListedFile

__all__ = ["describes_images", "is_data", "read_data"]

_DESCRIBING = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})


def describes_images(name: str) -> bool:
    """Tells whether a file may name the images of its folder, as in Hugging Face's imagefolder."""
    return name.lower().rpartition("/")[2].removesuffix(".gz") in _DESCRIBING


def is_data(name: str) -> bool:
    """Tells whether a file holds rows, by its extension in any case."""
    plain = name.lower().removesuffix(".gz")
    if plain.endswith((".parquet", ".pq", ".tar")):
        return plain == name.lower()
    return plain.endswith((".jsonl", ".ndjson", ".csv", ".tsv"))


def read_data(file: ListedFile, skipped: SkippedFiles) -> Iterator[Row]:
    """The rows of a data file.

    In a file that describes images, `file_name` stands for `image`, and its stem for `id`.
    """
    rows = _read(file, skipped)
    return _name_images(rows) if describes_images(file.name) else rows


def _name_images(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if not isinstance(row, RawRow):
            yield row
            continue
        fields = dict(row.fields)
        if "file_name" in fields and "image" not in fields:
            fields["image"] = fields.pop("file_name")
        image = fields.get("image")
        default_id = stem_of(image) if isinstance(image, str) and image.strip("./") else None
        yield replace(row, fields=fields, default_id=default_id)


def _read(file: ListedFile, skipped: SkippedFiles) -> Iterator[Row]:
    plain = file.name.lower().removesuffix(".gz")
    if plain.endswith(".csv"):
        return read_delimited(file, ",")
    if plain.endswith(".tsv"):
        return read_delimited(file, "\t")
    if plain.endswith(".tar"):
        return read_webdataset(file, skipped)
    if plain.endswith((".parquet", ".pq")):
        return read_parquet(file)
    return read_jsonl(file)
