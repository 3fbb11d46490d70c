"""A request means the same to the command, the demo and the API."""

import pickle
from itertools import product
from typing import get_args

import click
import pytest

from nightshift.cli.rerank import rerank
from nightshift.cli.tokens import build
from nightshift.producers.requests import IndexRequest, RerankRequest, TokenRequest
from nightshift.producers.resolve import (
    resolve_index,
    resolve_rerank,
    resolve_scorer,
    resolve_tokens,
)
from nightshift.schema.errors import ConfigurationError, RequestError
from nightshift.schema.params import FusionScale
from nightshift.scoring.methods.registry import METHODS, tie_framing

ABOUT_THE_COMMAND = {"wait", "dry_run", "data_dir", "as_json", "plan"}


def request(**fields: object) -> RerankRequest:
    return RerankRequest(catalog="shop", queries="queries.jsonl", scorer="m", **fields)  # type: ignore[arg-type]


def resolved(**fields: object):
    rerank_request = request(**fields)
    return resolve_rerank(
        rerank_request,
        scorer=resolve_scorer(rerank_request),
        query_parts="text",
        index_parts="image",
    )


@pytest.mark.parametrize(("command", "kind"), [(rerank, RerankRequest), (build, TokenRequest)])
def test_every_option_is_a_field_of_the_request(command: click.Command, kind: type) -> None:
    options = {option.name for option in command.params} - ABOUT_THE_COMMAND

    assert options <= set(kind.__dataclass_fields__)


@pytest.mark.parametrize("method", METHODS)
def test_a_bare_request_has_the_defaults_of_its_method(method):
    params, defaults = resolved(method=method), METHODS[method].preset(None)

    assert params.top_k == defaults.depth
    assert (params.quantum, params.tie_guard) == (defaults.quantum, defaults.tie_guard)
    assert params.fusion == defaults.fusion
    assert params.scorer.score == defaults.score
    assert params.scorer.enhancement == defaults.enhancement
    assert (params.query_parts, params.item_parts) == ("text", "image")


@pytest.mark.parametrize(
    ("method", "preset"), [(name, preset) for name in METHODS for preset in METHODS[name].presets]
)
def test_a_field_wins_over_the_preset(method, preset):
    params = resolved(
        method=method, preset=preset, top_k=3, quantum=0.5, fusion=0.25, tie_guard=True
    )

    assert (params.top_k, params.quantum, params.fusion) == (3, 0.5, 0.25)
    assert params.tie_guard
    assert params.scorer.preset == preset


def test_zero_is_a_value_and_no_default():
    params = resolved(method="indexmllm", fusion=0.0, compare=0.0)

    assert (params.fusion, params.compare) == (0.0, 0.0)


def test_enhancement_words_are_read_on_top_of_the_preset():
    enhancement = resolved(enhancement="alpha=0.3", memory="query").scorer.enhancement

    assert (enhancement.alpha, enhancement.memory) == (0.3, "query")
    assert enhancement.gamma == METHODS["retllm"].enhancement.gamma


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"top_k": 0}, "top_k"),
        ({"fusion": 2.0}, "fusion"),
        ({"debias": "twice"}, "debias"),
        ({"min_pixels": -1}, "min_pixels"),
        ({"item_parts": "sound"}, "sound"),
        ({"preset": "nobody's"}, "nobody's"),
        ({"score": "listwise", "top_k": 10}, "two digits"),
        (
            {"score": "number", "fusion": 0.5, "fusion_scale": "minmax"},
            "set quantum=0 or fusion_scale=raw",
        ),
    ],
)
def test_a_value_that_is_not_allowed_is_named(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        resolved(**fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"method": "telepathy"}, "method"),
        ({"preset": "nobody's"}, "preset"),
        ({"codec": "zip"}, "codec"),
        ({"item_parts": "sound"}, "item_parts"),
        ({"top_k": 0}, "top_k"),
        ({"enhancement": "maybe"}, "enhancement"),
        ({"score": "listwise", "top_k": 10}, "top_k"),
        ({"score": "number", "fusion": 0.5, "fusion_scale": "minmax"}, "fusion_scale"),
    ],
)
def test_an_error_carries_the_field_and_no_option(fields, field):
    with pytest.raises(RequestError) as refused:
        resolved(**fields)

    assert refused.value.field == field
    assert "--" not in str(refused.value)
    copy = pickle.loads(pickle.dumps(refused.value))
    assert (str(copy), copy.field) == (str(refused.value), field)


def test_an_embedder_sees_images_where_there_are_any():
    plain = IndexRequest(catalog="shop", embedder="m")
    both = IndexRequest(catalog="shop", embedder="m", parts="text,image")

    assert resolve_index(plain, has_images=True).parts == "image"
    assert resolve_index(plain, has_images=False).parts == "text"
    assert resolve_index(both, has_images=True).parts == "text,image"


def test_tokens_are_those_that_a_rerank_reads():
    """The same codec and limits name one token set, whoever asks for it."""
    tokens = TokenRequest(catalog="shop", scorer="m", codec="sample2 + int8", max_pixels=4096)

    assert resolve_tokens(tokens) == resolve_tokens(
        request(codec="sample2 + int8", max_pixels=4096)
    )


@pytest.mark.parametrize(
    ("method", "preset"), [(name, preset) for name in METHODS for preset in METHODS[name].presets]
)
def test_ties_are_asked_about_only_where_scores_are_fused_as_postgres_fuses_them(method, preset):
    """`stores.results.tied_pairs` finds ties on the scale `raw` only."""
    scores = ("margin_2way", "p_true_full", "number", "listwise")
    scales = get_args(FusionScale)
    fused_on = set()
    for score, scale, fusion, quantum in product(scores, scales, (0.0, 0.5), (0.0, 0.01)):
        try:
            params = resolved(
                method=method, preset=preset, score=score, fusion_scale=scale, fusion=fusion,
                quantum=quantum, top_k=5,
            )  # fmt: skip
        except ConfigurationError:
            continue
        if params.quantum and tie_framing(params.scorer) is not None:
            assert not params.fusion or params.fusion_scale == "raw"
            fused_on.add((params.fusion_scale, params.fusion))

    assert not fused_on or fused_on >= {("raw", 0.5), *((scale, 0.0) for scale in scales)}
