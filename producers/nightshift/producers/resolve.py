"""The parameters of a run, from a request and facts about models, catalogue and queries.

What a method, a preset and the fields given beside them mean is decided here and nowhere else.
Nothing here does I/O: the caller looks the facts up.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from nightshift.producers.enhancement_words import parse_enhancement
from nightshift.producers.requests import IndexRequest, RerankRequest, TokenRequest
from nightshift.schema.errors import ConfigurationError, RequestError
from nightshift.schema.params import (
    EnhancementParams,
    IndexParams,
    RerankParams,
    ScorerParams,
    TokenParams,
    kinds_from_text,
)
from nightshift.scoring.codecs import parse_codec
from nightshift.scoring.methods.method import Method
from nightshift.scoring.methods.registry import METHODS, tie_framing
from nightshift.scoring.prompts import MAX_LISTED

__all__ = ["resolve_index", "resolve_rerank", "resolve_scorer", "resolve_tokens"]


def resolve_index(request: IndexRequest, *, has_images: bool) -> IndexParams:
    """The parameters of an index run.

    A caption beside an image is for people, unless the request names both parts.

    Args:
        request: The request.
        has_images: Whether any item of the catalogue has an image.

    Raises:
        RequestError: The parts are not `text`, `image` or `text,image`.
    """
    return IndexParams(parts=_parts(request.parts, "parts") or ("image" if has_images else "text"))


def resolve_tokens(request: TokenRequest | RerankRequest) -> TokenParams:
    """The codec and the pixel limits: together with the scorer they name a token set.

    Raises:
        RequestError: The codec or the method's preset does not exist, or a limit is not
            allowed.
    """
    min_pixels, max_pixels = request.min_pixels, request.max_pixels
    long_side = request.long_side
    if isinstance(request, RerankRequest):
        method = _method(request)
        min_pixels = min_pixels or method.min_pixels
        max_pixels = max_pixels or method.max_pixels
        long_side = long_side or method.long_side
    with _about("codec"):
        codec = str(parse_codec(request.codec))
    with _field_errors():
        return TokenParams(
            codec=codec,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            long_side=long_side,
        )


def resolve_scorer(request: RerankRequest, *, codebook: str = "") -> ScorerParams:
    """The parameters that change a score; with the weights they make the scorer's fingerprint.

    Args:
        request: The request.
        codebook: Digest of the codebook of the token set that is read; empty where it has none.

    Raises:
        RequestError: The method has no such preset or no prompt for the score, or a value is
            not allowed.
    """
    method, tokens = _method(request), resolve_tokens(request)
    score = request.score or method.score
    with _about("score"):
        framing = request.framing or method.framing_for(score).name
    enhancement = _enhancement(request, method.enhancement)
    with _field_errors():
        return ScorerParams(
            method=request.method,
            preset=request.preset or ("default" if "default" in method.presets else None),
            score=score,
            list_orders=request.list_orders,
            framing=framing,
            debias=request.debias,
            subtract_prior=request.subtract_prior,
            symmetrise=request.symmetrise,
            codec=tokens.codec,
            codebook=codebook,
            code_queries=request.code_queries and not parse_codec(tokens.codec).lossless,
            min_pixels=tokens.min_pixels,
            max_pixels=tokens.max_pixels,
            long_side=tokens.long_side,
            enhancement=enhancement,
        )


def resolve_rerank(
    request: RerankRequest, *, scorer: ScorerParams, query_parts: str, index_parts: str
) -> RerankParams:
    """All parameters of a re-ranking run.

    Args:
        request: The request.
        scorer: As `resolve_scorer` returns them.
        query_parts: The parts that the queries have.
        index_parts: The parts that the embedder of the index sees.

    Raises:
        RequestError: A value is not allowed, lists would be longer than a model can answer,
            or ties would be scored again on a scale on which they are not counted.
    """
    method = _method(request)
    with _field_errors():
        params = RerankParams(
            top_k=method.depth if request.top_k is None else request.top_k,
            query_parts=_parts(request.query_parts, "query_parts") or query_parts,
            item_parts=_parts(request.item_parts, "item_parts") or index_parts,
            quantum=method.quantum if request.quantum is None else request.quantum,
            tie_guard=method.tie_guard if request.tie_guard is None else request.tie_guard,
            fusion=method.fusion if request.fusion is None else request.fusion,
            fusion_scale=request.fusion_scale,
            compare=request.compare,
            scorer=scorer,
        )
    _refuse_long_lists(params)
    _refuse_scaled_ties(params)
    return params


def _parts(value: str | None, field: str) -> str | None:
    """The parts as given, if they are `text`, `image` or both."""
    try:
        return value if value is None or kinds_from_text(value) else None
    except ValueError as error:
        raise RequestError(str(error), field) from None


def _method(request: RerankRequest) -> Method:
    if request.method not in METHODS:
        known = ", ".join(METHODS)
        raise RequestError(f"no method is called {request.method!r}; known: {known}", "method")
    with _about("preset"):
        return METHODS[request.method].preset(request.preset)


def _enhancement(request: RerankRequest, default: EnhancementParams) -> EnhancementParams:
    if isinstance(request.enhancement, EnhancementParams):
        return request.enhancement
    words = (request.enhancement, request.memory and f"memory={request.memory}")
    given = ",".join(word for word in words if word)
    return parse_enhancement(given, default) if given else default


def _refuse_scaled_ties(params: RerankParams) -> None:
    if (
        params.fusion
        and params.fusion_scale != "raw"
        and params.quantum
        and tie_framing(params.scorer) is not None
    ):
        raise RequestError(
            f"pairs that tie are scored once more, and ties are not counted on the scale "
            f"{params.fusion_scale!r}",
            "fusion_scale",
            (("quantum", "0"), ("fusion_scale", "raw")),
        )


def _refuse_long_lists(params: RerankParams) -> None:
    if params.scorer.score == "listwise" and params.top_k > MAX_LISTED:
        raise RequestError(
            f"a list of {params.top_k} candidates has numbers of two digits, which are no single "
            f"tokens: {MAX_LISTED} at the most",
            "top_k",
            (("top_k", str(MAX_LISTED)),),
        )


@contextmanager
def _about(field: str) -> Iterator[None]:
    """Turn an error about a value into one about the field that has it."""
    try:
        yield
    except RequestError:
        raise
    except ConfigurationError as error:
        raise RequestError(str(error), field) from error


@contextmanager
def _field_errors() -> Iterator[None]:
    """Turn pydantic's error about a field into a RequestError about it."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field, *inner = map(str, first["loc"] or ("",))
        reason = ": ".join([".".join(inner), first["msg"]] if inner else [first["msg"]])
        raise RequestError(reason, field) from error
