"""Planning of a token run: describe the vision tower, resolve, write the run and its jobs."""

from collections.abc import Sequence

from nightshift.models.checkpoints.describe import describe_vision
from nightshift.models.preflight.loadable import require_loadable
from nightshift.models.preflight.token_grids import token_grids
from nightshift.producers.estimate_tokens import Projection, estimate_tokens
from nightshift.producers.plan_tokens import PlannedTokens, plan_tokens
from nightshift.producers.requests import TokenRequest
from nightshift.producers.resolve import resolve_tokens
from nightshift.schema.errors import RequestError
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import TokenParams
from nightshift.schema.settings import Settings
from nightshift.scoring.codecs import CodecSpec, parse_codec
from nightshift.stores.postgres.database import Database

__all__ = ["compare_codecs", "plan", "require_room"]

# The codecs that a comparison shows beside the requested one.
_COMPARED_CODECS = ("none", "int8", "sample2", "pool2", "kmeans(70)", "group(4)")
# Numbers a part of a vector has in the product codes that it shows.
_PART_WIDTHS = (8, 32)


def plan(database: Database, settings: Settings, request: TokenRequest) -> PlannedTokens:
    """Begin the run of a request.

    Raises:
        NotFoundError: The catalogue does not exist.
        ConflictError: It has no images, or its tokens are stored elsewhere.
        ConfigurationError: The request has a value that is not allowed, or the tokens would take
            more than `max_bytes`.
        ModelError: No worker could load the scorer's vision tower.
    """
    params = resolve_tokens(request)
    vision = _describe(request, params)
    require_loadable(vision)
    if request.max_bytes is not None:
        (projection,) = _estimate(database, request, vision, [parse_codec(params.codec)])
        require_room(request, projection)
    return plan_tokens(
        database,
        request.catalog,
        vision=vision,
        params=params,
        store=request.store or str(settings.data_dir.absolute() / "tokens"),
        priority=request.priority,
    )


def compare_codecs(database: Database, request: TokenRequest) -> list[Projection]:
    """Estimate the bytes of the requested codec, which comes first, and of others.

    Raises:
        NotFoundError: The catalogue does not exist.
        ConflictError: It has no image that can be read.
        ConfigurationError: The request has a value that is not allowed.
        ModelError: No worker could load the scorer's vision tower.
    """
    params = resolve_tokens(request)
    vision = _describe(request, params)
    require_loadable(vision)
    products = [f"pq({vision.dim // width},8)" for width in _PART_WIDTHS if not vision.dim % width]
    requested = parse_codec(params.codec)
    others = map(parse_codec, (*_COMPARED_CODECS, *products))
    return _estimate(
        database, request, vision, [requested, *(codec for codec in others if codec != requested)]
    )


def require_room(request: TokenRequest, projection: Projection) -> None:
    """Refuse a run that would store more than `max_bytes`.

    Raises:
        RequestError: It would.
    """
    if request.max_bytes is not None and projection.bytes_to_add > request.max_bytes:
        raise RequestError(
            f"{projection.codec} tokens of {request.catalog!r} would take about "
            f"{projection.bytes_to_add:,} bytes more, which is over {request.max_bytes:,}: "
            "choose a codec with fewer bytes, or fewer pixels per image",
            "max_bytes",
        )


def _describe(request: TokenRequest, params: TokenParams) -> ModelFacts:
    return describe_vision(
        request.scorer,
        min_pixels=params.min_pixels,
        max_pixels=params.max_pixels,
        long_side=params.long_side,
    )


def _estimate(
    database: Database, request: TokenRequest, vision: ModelFacts, codecs: Sequence[CodecSpec]
) -> list[Projection]:
    return estimate_tokens(
        database,
        request.catalog,
        vision=vision,
        codecs=codecs,
        count=lambda images: token_grids(vision, images),
    )
