"""FreeRet's questions: the published one word for word, its variants, and what its depth means."""

from itertools import product
from math import nan

import pytest

from nightshift.schema.errors import ConfigurationError
from nightshift.schema.params import MethodName, ScorerParams
from nightshift.schema.records import PartKind
from nightshift.scoring.methods.freeret import FREERET
from nightshift.scoring.methods.registry import METHODS, framing, framings_of
from nightshift.scoring.prompts import Content, Framing
from nightshift.scoring.tie_break import break_ties

KINDS: list[frozenset[PartKind]] = [
    frozenset({"text"}),
    frozenset({"image"}),
    frozenset({"text", "image"}),
]
TEXT, ONE_IMAGE = Content(texts=("a red square",)), Content(n_images=1)


def shown(rule: Framing, query: Content, candidate: Content) -> str:
    prompt = rule.render(query, candidate)
    return "".join(
        part if isinstance(part, str) else f"[{part.side}]"
        for part in prompt.prefix + prompt.suffix
    )


def params(name: str, debias: str = "none") -> ScorerParams:
    return ScorerParams.model_validate({"method": "freeret", "framing": name, "debias": debias})


def test_the_published_prompt_is_word_for_word() -> None:
    assert shown(framing("freeret"), TEXT, ONE_IMAGE) == (
        "Task: Determine whether the candidate matches the query.\n"
        "Query: a red square\n"
        "Candidate: [candidate]\n"
        "A. Yes, the candidate fully matches the query.\n"
        "B. No, the candidate does not match or only partially matches."
    )


def test_a_swapped_choice_exchanges_the_answers_and_nothing_else() -> None:
    rule, swapped = framings_of(params("freeret", "swap"))

    assert shown(swapped, TEXT, ONE_IMAGE) == (
        "Task: Determine whether the candidate matches the query.\n"
        "Query: a red square\n"
        "Candidate: [candidate]\n"
        "A. No, the candidate does not match or only partially matches.\n"
        "B. Yes, the candidate fully matches the query."
    )
    assert (swapped.labels.positive, swapped.labels.negative) == ("B", "A")
    assert swapped.render(TEXT, ONE_IMAGE).prefix == rule.render(TEXT, ONE_IMAGE).prefix, (
        "both questions share the beginning of one group"
    )


def test_without_query_and_candidate_the_question_stays_as_it_is() -> None:
    rule, swapped = framings_of(params("freeret", "swap"))

    context_free = rule.context_free()

    assert "".join(map(str, context_free.prefix + context_free.suffix)) == (
        "Task: Determine whether the candidate matches the query.\n"
        "Query: \n"
        "Candidate: \n"
        "A. Yes, the candidate fully matches the query.\n"
        "B. No, the candidate does not match or only partially matches."
    )
    assert swapped.context_free().suffix != context_free.suffix


def test_other_methods_have_no_prior_to_subtract() -> None:
    with pytest.raises(ConfigurationError, match="subtract_prior"):
        framings_of(ScorerParams(subtract_prior=True))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("freeret", ("A", "B")),
        ("freeret_true_false", ("True", "False")),
        ("freeret_yes_no", ("Yes", "No")),
        ("freeret_right_wrong", ("Right", "Wrong")),
    ],
)
@pytest.mark.parametrize("first", ["query", "candidate"])
def test_the_side_that_comes_first_is_the_side_that_is_shared(
    name: str, labels: tuple[str, str], first: str
) -> None:
    if first == "candidate":
        name = name.replace("freeret", "freeret_candidate_first")
    rule, swapped = framings_of(params(name, "swap"))

    assert {rule.labels.positive, rule.labels.negative} == set(labels)
    assert {swapped.labels.positive, swapped.labels.negative} == set(labels)
    for query, candidate in product(KINDS, KINDS):
        assert rule.shared_side(query, candidate) == first
        assert swapped.shared_side(query, candidate) == first
    wording = shown(rule, TEXT, ONE_IMAGE)
    assert wording.index("Query:") < wording.index("Candidate:") or first == "candidate"


def test_only_the_paper_s_own_wording_counts_as_published() -> None:
    published = {
        rule.name
        for rule in FREERET.framings
        if all(template.published for template in rule.templates.values())
    }

    assert published == {"freeret"}


def test_every_framing_and_its_swapped_twin_has_a_digest_of_its_own() -> None:
    rules = [*FREERET.framings, *FREERET.swapped.values()]

    assert len(rules) == 16
    assert len({rule.digest for rule in rules}) == len(rules)


def test_a_framing_of_another_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="freeret_yes_no"):
        framings_of(params("retllm"))


def test_a_framing_without_a_swapped_twin_cannot_be_debiased() -> None:
    with pytest.raises(ConfigurationError, match="exchanged"):
        framings_of(ScorerParams(debias="swap"))


@pytest.mark.parametrize(
    ("method", "depth", "quantum", "trigger"),
    [("retllm", 5, 0.01, "entropy"), ("freeret", 50, 0.0, "never")],
)
def test_a_method_brings_the_depth_the_ties_and_the_enhancement_of_its_paper(
    method: MethodName, depth: int, quantum: float, trigger: str
) -> None:
    description = METHODS[method]

    assert (description.depth, description.quantum, description.enhancement.trigger) == (
        depth,
        quantum,
        trigger,
    )


def test_a_depth_of_nothing_leaves_the_coarse_order() -> None:
    placements = break_ties([nan] * 4, [nan] * 4, [3, 1, 4, 2], quantum=FREERET.quantum)

    assert [placement.final_rank for placement in placements] == [3, 1, 4, 2]


def test_what_lies_below_the_depth_keeps_its_order_below_the_scored() -> None:
    margins = [-2.0, -1.0, nan, nan]

    placements = break_ties(margins, [0.1] * 4, [1, 2, 3, 4], quantum=FREERET.quantum)

    assert [placement.final_rank for placement in placements] == [2, 1, 3, 4]


def test_a_depth_of_everything_orders_all_by_their_margin() -> None:
    placements = break_ties(
        [0.1, 3.0, -1.0, 0.10001], [0.1] * 4, [1, 2, 3, 4], quantum=FREERET.quantum
    )

    assert [placement.final_rank for placement in placements] == [3, 1, 4, 2]
    assert {placement.tie_size for placement in placements} == {1}
