"""Bind a method to a loaded model, and say which methods score each pair by itself."""

from nightshift.models.engine.enhancement import effective
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.packed.batches import unpacked_reason
from nightshift.models.engine.packed.engine import PackedEngine
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Engine
from nightshift.models.engine.runtime.report import LoadReport
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.scorers.generated import MAX_WRITTEN_TOKENS, NumberScorer
from nightshift.models.scorers.lists import ListScorer
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import Scorer
from nightshift.schema.params import ScorerParams
from nightshift.scoring.methods.registry import framings_of, tie_framing
from nightshift.scoring.prompts import MAX_LISTED, Numbers, Side

__all__ = ["bind", "engine_for", "unbatched_reason"]


def bind(
    family: Family,
    params: ScorerParams,
    fingerprint: str,
    codec: Codec | None = None,
    *,
    max_written_tokens: int = MAX_WRITTEN_TOKENS,
) -> Scorer:
    """Bind a method to a loaded model.

    Args:
        family: The model.
        params: The method and its parameters.
        fingerprint: Of weights and parameters.
        codec: That of the parameters; None where it loses nothing.
        max_written_tokens: Of a score that the model writes.

    Raises:
        ModelError: A label is not one token of the model.
    """
    rules = framings_of(params)
    words = Numbers(k=MAX_LISTED).words if params.score == "listwise" else rules[0].labels.words
    labelled = family.with_labels(words)
    limits = PixelLimits(
        min_pixels=params.min_pixels, max_pixels=params.max_pixels, long_side=params.long_side
    )
    coded: dict[Side, Codec] = {}
    if codec is not None:
        coded["candidate"] = codec
        if params.code_queries:
            coded["query"] = codec
    engine = engine_for(labelled, limits)
    if params.score == "listwise":
        return ListScorer(engine, rules[0], params, fingerprint, coded)
    over_all = params.score == "p_true_full"
    tie = tie_framing(params)
    if tie is not None:
        # A number is written from where the template ends.
        writes = PairScorer(
            engine_for(family, limits), rules, params.enhancement, fingerprint, coded
        )
        for_ties = PairScorer(engine, (tie,), params.enhancement, fingerprint, coded)
        return NumberScorer(family, writes, for_ties, params.enhancement, max_written_tokens)
    return PairScorer(
        engine,
        rules,
        params.enhancement,
        fingerprint,
        coded,
        over_all=over_all,
        subtract_prior=params.subtract_prior,
    )


def engine_for(family: Family, limits: PixelLimits) -> Engine:
    """The packed engine where the family allows it, else the plain one."""
    if family.layer_ops is None:
        return PlainEngine(family, limits)
    return PackedEngine(family, family.layer_ops, limits)


def unbatched_reason(report: LoadReport, params: ScorerParams) -> str | None:
    """Say why pairs are scored one by one; None where they share what their prompts have in common.

    Scores are the same either way; the time is not.

    Args:
        report: Of the loaded model.
        params: The method and its parameters.
    """
    if params.score == "number":
        return "a score that the model writes has a prompt of its own for each pair"
    return report.unpacked_reason or unpacked_reason(effective(params.enhancement))
