"""Estimates the size of visual tokens from a sample of the images, before any is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from sqlalchemy import Connection

from nightshift.schema.errors import ConflictError, InputError
from nightshift.schema.models import ModelFacts
from nightshift.schema.records import ImagePart
from nightshift.scoring.codecs import CodecSpec, Grid
from nightshift.stores.catalog import catalogs
from nightshift.stores.catalog.contents import load_items
from nightshift.stores.catalog.revisions import newest_revision
from nightshift.stores.files.images import read_image
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens import token_sets

__all__ = ["Projection", "estimate_tokens"]

# Items whose images stand for those of the catalogue.
_SAMPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """The estimated size of a catalogue's visual tokens under one codec."""

    codec: str
    bytes_per_image: float
    #: Of all distinct contents.
    bytes: int
    #: Of those that have no tokens under this codec yet.
    bytes_to_add: int
    #: How much less than plain tokens.
    times_smaller: float


def estimate_tokens(
    database: Database,
    catalog: str,
    *,
    vision: ModelFacts,
    codecs: Sequence[CodecSpec],
    count: Callable[[Sequence[Image.Image]], list[Grid]],
) -> list[Projection]:
    """Estimate the size under each codec.

    Args:
        database: Postgres.
        catalog: Its name.
        vision: Whose tokens.
        codecs: Which.
        count: Visual tokens of images in time, rows and columns.

    Raises:
        NotFoundError: There is no such catalogue.
        ConflictError: It has no image that can be read.
    """
    with database.begin() as connection:
        catalog_id = catalogs.catalog_id(connection, catalog)
        revision = newest_revision(connection, catalog_id)
        every = token_sets.distinct_items(connection, catalog_id, revision=revision)
        sample = every[:: max(1, len(every) // _SAMPLE)]
        records = load_items(connection, sample, revision=revision)
        missing = {
            codec: _count_missing(connection, catalog_id, vision, codec, every, revision)
            for codec in codecs
        }
    parts = [
        part for record in records.values() for part in record.parts if isinstance(part, ImagePart)
    ]
    # In turn: all at once, decoded images of many megapixels would take gigabytes.
    grids = [
        grid for part in parts if (image := _read(part)) is not None for grid in count([image])
    ]
    if not grids:
        raise ConflictError(f"no item of catalogue {catalog!r} has an image that can be read")
    n_images = len(every) * len(parts) / len(records)
    plain = _mean(CodecSpec.plain(), grids, vision)
    return [
        Projection(
            codec=str(codec),
            bytes_per_image=(each := _mean(codec, grids, vision)),
            bytes=round(each * n_images),
            bytes_to_add=round(each * n_images * missing[codec] / len(every)),
            times_smaller=plain / each,
        )
        for codec in codecs
    ]


def _count_missing(
    connection: Connection,
    catalog_id: int,
    vision: ModelFacts,
    codec: CodecSpec,
    every: list[int],
    revision: int,
) -> int:
    """Count the items among `every` that have no tokens under a codec."""
    token_set = token_sets.find_set(
        connection,
        catalog_id=catalog_id,
        vision_fingerprint=vision.fingerprint,
        codec=str(codec),
    )
    if token_set is None:
        return len(every)
    return len(token_sets.items_to_see(connection, token_set, revision=revision))


def _mean(codec: CodecSpec, grids: Sequence[Grid], vision: ModelFacts) -> float:
    precision = str(vision.card["precision"])
    return sum(codec.n_bytes(grid, vision.dim, precision) for grid in grids) / len(grids)


def _read(part: ImagePart) -> Image.Image | None:
    try:
        return read_image(part.uri, sha256=part.sha256)
    except InputError:
        return None  # a failure of its own when the tokens are made
