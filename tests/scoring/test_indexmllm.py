"""IndexMLLM's questions and its fusion, on plain data."""

import numpy as np
import pytest

from nightshift.schema.errors import ConfigurationError, InputError
from nightshift.schema.params import ScorerParams
from nightshift.scoring.fusion import fuse, probability
from nightshift.scoring.methods.indexmllm import INDEXMLLM
from nightshift.scoring.methods.registry import framings_of
from nightshift.scoring.prompts import Content, ImageRef
from nightshift.scoring.tie_break import break_ties

ONE_IMAGE = Content(n_images=1)


def params(framing: str = "object", **more: object) -> ScorerParams:
    return ScorerParams(method="indexmllm", framing=framing, **more)


def order(margins, coarse, weight: float) -> list[int]:
    fused = fuse(coarse, probability(margins), weight=weight)
    ranks = np.argsort(np.argsort(-np.asarray(coarse))) + 1
    placements = break_ties(margins, np.zeros(len(margins)), ranks, quantum=0.0, fused=fused)
    return [placement.final_rank for placement in placements]


@pytest.mark.parametrize("name", ["object", "landmark", "generic", "product"])
def test_every_question_shows_the_query_then_the_candidate_and_asks_for_a_digit(name: str) -> None:
    (rule,) = framings_of(params(name))

    prompt = rule.render(ONE_IMAGE, ONE_IMAGE)

    assert prompt.shared_side == "query"
    assert prompt.prefix == (ImageRef(side="query", index=0),)
    shown, requested = prompt.suffix
    assert shown == ImageRef(side="candidate", index=0)
    assert isinstance(requested, str)
    assert requested.startswith("\nYou are given two images: a query and a candidate. Determine ")
    assert "\nOutput strictly a single digit:\n0 = " in requested
    assert requested.endswith("\n\nDo not output anything else.\n")
    assert (rule.labels.positive, rule.labels.negative) == ("1", "0")


def test_the_question_about_objects_is_the_published_one() -> None:
    (rule,) = framings_of(params())
    (template,) = rule.templates.values()
    assert template.published
    assert template.suffix[1] == (
        "\nYou are given two images: a query and a candidate. Determine whether the exact same "
        "object instance from the query image is present in the candidate image.\n"
        "* The instance must be the same, not just a similar object.\n"
        "* The instance may appear at a different scale, partially occluded, or among other "
        "objects.\n\n"
        "Output strictly a single digit:\n"
        "0 = the object instance does not appear\n"
        "1 = the object instance appears in the candidate\n\n"
        "Do not output anything else.\n"
    )


def test_texts_are_refused_with_the_remedy() -> None:
    (rule,) = framings_of(params())
    with pytest.raises(InputError, match="choose other parts"):
        rule.render(Content(texts=("a",)), ONE_IMAGE)


def test_a_mirrored_question_shows_the_candidate_first() -> None:
    rule, mirrored = framings_of(params(symmetrise=True))

    prompt = mirrored.render(Content(n_images=2), ONE_IMAGE)

    assert prompt.shared_side == "candidate"
    assert prompt.prefix == (ImageRef(side="candidate", index=0),)
    assert prompt.suffix[:2] == (ImageRef(side="query", index=0), ImageRef(side="query", index=1))
    assert prompt.suffix[2:] == rule.render(ONE_IMAGE, ONE_IMAGE).suffix[1:]
    assert mirrored.digest != rule.digest
    assert mirrored.mirrored().render(ONE_IMAGE, ONE_IMAGE) == rule.render(ONE_IMAGE, ONE_IMAGE)


def test_a_question_of_another_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="object, landmark, generic, product"):
        framings_of(params("retllm"))


def test_lambda_ranges_from_the_models_order_to_the_coarse_one() -> None:
    margins, coarse = [3.0, -1.0, 1.0, -4.0], [0.1, 0.9, 0.2, 0.3]

    assert order(margins, coarse, 0) == [1, 3, 2, 4]
    assert order(margins, coarse, 1) == [4, 1, 3, 2]
    # 0.5·(0.1, 0.9, 0.2, 0.3) + 0.5·(0.953, 0.269, 0.731, 0.018)
    assert order(margins, coarse, 0.5) == [2, 1, 3, 4]


def test_its_defaults_are_the_authors_but_for_the_depth() -> None:
    assert (INDEXMLLM.depth, INDEXMLLM.quantum, INDEXMLLM.fusion) == (100, 0.0, 0.5)
    assert INDEXMLLM.framings[0].name == "object"


LANDMARK = """\
Determine whether the exact same landmark, building, or architectural detail from the query image \
is present in the candidate image.
* The instance must be the same, not just a similar-looking building or structure.
* The query image may show the entire landmark or just a specific, cropped part of it (like a \
doorway, statue, or window).
* The instance in the candidate image may appear at a different scale, from a different \
viewpoint/angle, under different lighting, or be partially occluded.

Output strictly a single digit:
0 = the instance does not appear
1 = the instance appears in the candidate
"""
GENERIC = """\
Determine whether the candidate is similar to the query image.

Output strictly a single digit:
0 = the object instance does not appear.
1 = the object instance appears in the candidate.
"""


@pytest.mark.parametrize(("name", "words"), [("landmark", LANDMARK), ("generic", GENERIC)])
def test_the_other_published_questions_are_word_for_word(name: str, words: str) -> None:
    (rule,) = framings_of(params(name))
    (template,) = rule.templates.values()

    assert template.published
    assert template.suffix[1] == (
        "\nYou are given two images: a query and a candidate. "
        f"{words}\nDo not output anything else.\n"
    )


def test_the_authors_code_scales_the_longer_side_to_756() -> None:
    code = INDEXMLLM.preset("code")

    assert (code.depth, code.long_side) == (1000, 756)
    assert (code.min_pixels, code.max_pixels) == (256 * 28 * 28, 1280 * 28 * 28)
    assert INDEXMLLM.preset(None).long_side is None
