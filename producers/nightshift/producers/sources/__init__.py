"""Readers: folders, JSONL, CSV, Parquet and WebDataset tars as one stream of rows."""

from nightshift.producers.sources.detect import open_source
from nightshift.producers.sources.fields import Draft, FieldNames, draft_of
from nightshift.producers.sources.left_out import LeftOut
from nightshift.producers.sources.rows import BadRow, EmbeddedImage, RawRow, Row

__all__ = [
    "BadRow",
    "Draft",
    "EmbeddedImage",
    "FieldNames",
    "LeftOut",
    "RawRow",
    "Row",
    "draft_of",
    "open_source",
]
