"""Readers: folders, JSONL, CSV, Parquet and WebDataset tars as one stream of rows."""

from nightshift.producers.sources.detect import open_source
from nightshift.producers.sources.fields import Draft, FieldNames, draft_of
from nightshift.producers.sources.rows import BadRow, EmbeddedImage, RawRow, Row
from nightshift.producers.sources.skipped_files import SkippedFiles

__all__ = [
    "BadRow",
    "Draft",
    "EmbeddedImage",
    "FieldNames",
    "RawRow",
    "Row",
    "SkippedFiles",
    "draft_of",
    "open_source",
]
