"""RetLLM's presets, and which framing a score is read from."""

import pytest

from nightshift.schema.errors import ConfigurationError
from nightshift.schema.params import ScorerParams
from nightshift.scoring.methods.freeret import FREERET
from nightshift.scoring.methods.registry import framings_of, tie_framing
from nightshift.scoring.methods.retllm import RETLLM


@pytest.mark.parametrize(
    ("name", "score", "alpha", "memory", "lens_norm", "norm_match"),
    [
        ("default", "margin_2way", 0.12, "image", "final", "position"),
        ("paper", "number", 0.3, "image", "final", "sequence"),
        ("code", "p_true_full", 0.12, "all", "none", "sequence"),
    ],
)
def test_a_preset_says_what_it_stands_for(
    name: str, score: str, alpha: float, memory: str, lens_norm: str, norm_match: str
) -> None:
    preset = RETLLM.preset(name)

    assert (preset.score, preset.depth, preset.quantum) == (score, 5, 0.01)
    enhancement = preset.enhancement
    assert (enhancement.trigger, enhancement.gamma) == ("entropy", 0.75)
    assert (enhancement.alpha, enhancement.memory) == (alpha, memory)
    assert (enhancement.lens_norm, enhancement.norm_match) == (lens_norm, norm_match)


def test_the_authors_code_has_layers_of_its_own_no_guard_and_a_floor_of_256_tokens() -> None:
    code, default = RETLLM.preset("code"), RETLLM.preset("default")

    assert code.enhancement.window == (5, 16)
    assert (code.tie_guard, default.tie_guard) == (False, True)
    assert (code.min_pixels, code.max_pixels) == (256 * 28 * 28, 512 * 28 * 28)
    assert (default.min_pixels, default.max_pixels, default.long_side) == (None, None, None)


def test_no_preset_is_the_default_one() -> None:
    unnamed, default = RETLLM.preset(None), RETLLM.preset("default")

    assert unnamed.score == default.score
    assert unnamed.enhancement == default.enhancement


def test_a_method_without_that_preset_says_which_it_has() -> None:
    with pytest.raises(ConfigurationError, match="has no preset 'paper'; it has: none"):
        FREERET.preset("paper")


@pytest.mark.parametrize(
    ("score", "framing"),
    [
        ("margin_2way", "retllm"),
        ("p_true_full", "retllm"),
        ("number", "retllm_number"),
        ("listwise", "retllm_listwise"),
    ],
)
def test_each_score_has_a_framing_that_asks_for_it(score: str, framing: str) -> None:
    rule = RETLLM.framing_for(score)
    (results,) = framings_of(ScorerParams(score=score, framing=rule.name))

    assert (rule.name, results) == (framing, rule)


@pytest.mark.parametrize(
    "params",
    [
        ScorerParams(score="number"),
        ScorerParams(score="margin_2way", framing="retllm_listwise"),
        ScorerParams(score="number", framing="retllm_number", symmetrise=True),
    ],
    ids=str,
)
def test_a_score_that_cannot_be_read_from_a_framing_is_refused(params: ScorerParams) -> None:
    with pytest.raises(ConfigurationError, match="choose"):
        framings_of(params)


def test_only_a_written_score_needs_a_second_question_for_ties() -> None:
    assert tie_framing(ScorerParams()) is None
    assert tie_framing(ScorerParams(score="number", framing="retllm_number")) is not None


def test_another_method_has_no_framing_for_a_list() -> None:
    with pytest.raises(ConfigurationError, match="freeret has no framing for score 'listwise'"):
        FREERET.framing_for("listwise")
