"""RetLLM's prompts: as published, split where they can be shared."""

import re
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.schema.errors import ConfigurationError, InputError
from nightshift.schema.records import PartKind
from nightshift.scoring.methods.registry import FRAMINGS, framing
from nightshift.scoring.methods.retllm_prompts import LISTWISE_FRAMING, NUMBER_FRAMING, TIE_FRAMING
from nightshift.scoring.prompts import (
    Content,
    Framing,
    ImageRef,
    Labels,
    Rendered,
    Slot,
    Template,
)

KINDS: list[frozenset[PartKind]] = [
    frozenset({"text"}),
    frozenset({"image"}),
    frozenset({"text", "image"}),
]
RETLLM = framing("retllm")
RULES = [*FRAMINGS.values(), TIE_FRAMING]

texts = st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple)


def contents(kinds: frozenset[PartKind]) -> st.SearchStrategy[Content]:
    return st.builds(
        Content,
        texts=texts if "text" in kinds else st.just(()),
        n_images=st.integers(1, 3) if "image" in kinds else st.just(0),
    )


def shown(prompt: Rendered) -> str:
    """The whole prompt on one line, images as [side number]."""
    return "".join(
        part if isinstance(part, str) else f"[{part.side} {part.index}]"
        for part in prompt.prefix + prompt.suffix
    )


def a(kind: str, name: str) -> Content:
    return Content(
        texts=(f"the {name}",) if kind in {"text", "both"} else (),
        n_images=1 if kind in {"image", "both"} else 0,
    )


@pytest.mark.parametrize(
    ("query", "candidate", "wording"),
    [
        (
            "text",
            "image",
            (
                "[candidate 0]Does the image match the caption: <the query>? "
                "Please directly output True or False"
            ),
        ),
        (
            "image",
            "text",
            (
                "[query 0]Does the image match the caption: <the candidate>? "
                "Please directly output True or False"
            ),
        ),
        (
            "both",
            "image",
            (
                "Query image[query 0]Candidate image[candidate 0]Does the candidate image match "
                "the Query text: <the query> and query image? Please directly output True or False"
            ),
        ),
        (
            "both",
            "both",
            (
                "Query image[query 0]Candidate image[candidate 0]Does the Candidate image and "
                "Candidate image caption :the candidate are match the Query image and the Query "
                "caption :the query? Please directly output True or False"
            ),
        ),
    ],
)
def test_a_published_prompt_is_word_for_word(query: str, candidate: str, wording: str) -> None:
    prompt = RETLLM.render(a(query, "query"), a(candidate, "candidate"))

    assert shown(prompt) == wording


@pytest.mark.parametrize(
    ("query", "candidate"),
    list(product(["text", "image", "both"], repeat=2)),
    ids=str,
)
def test_each_of_the_nine_combinations_shows_all_there_is_and_nothing_else(
    query: str, candidate: str
) -> None:
    wording = shown(RETLLM.render(a(query, "query"), a(candidate, "candidate")))

    for side, kind in (("query", query), ("candidate", candidate)):
        assert wording.count(f"[{side} 0]") == int(kind != "text")
        assert wording.count(f"the {side}") >= int(kind != "image")
    assert wording.endswith("Please directly output True or False")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@given(data=st.data())
def test_the_prefix_depends_on_the_shared_side_alone(rule: Framing, data: st.DataObject) -> None:
    query_kinds, item_kinds = data.draw(st.sampled_from([*rule.templates]))
    pair = data.draw(contents(query_kinds)), data.draw(contents(item_kinds))
    other = data.draw(contents(query_kinds)), data.draw(contents(item_kinds))
    by_query = rule.shared_side(query_kinds, item_kinds) == "query"
    mixed = (pair[0], other[1]) if by_query else (other[0], pair[1])

    assert rule.render(*pair).prefix == rule.render(*mixed).prefix


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@given(data=st.data())
def test_rendering_shares_the_side_it_announces_and_joins_adjacent_text(
    rule: Framing, data: st.DataObject
) -> None:
    query, candidate = map(data.draw, map(contents, data.draw(st.sampled_from([*rule.templates]))))

    prompt = rule.render(query, candidate)

    assert prompt.shared_side == rule.shared_side(query.kinds, candidate.kinds)
    for half in (prompt.prefix, prompt.suffix):
        assert "" not in half
        assert not any(isinstance(x, str) and isinstance(y, str) for x, y in pairwise(half))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_prefix_ends_where_tokens_end_whatever_the_text(rule: Framing) -> None:
    for template in rule.templates.values():
        if not template.prefix:
            continue
        end, begin = template.prefix[-1], template.suffix[0]
        at_an_image = isinstance(end, Slot) or isinstance(begin, Slot)
        before_a_space = isinstance(begin, str) and re.match(r" (\S|$)", begin) is not None

        assert at_an_image or before_a_space


def test_the_image_is_shared_between_text_and_image() -> None:
    text, image, _ = KINDS

    assert RETLLM.shared_side(text, image) == "candidate"
    assert RETLLM.shared_side(image, text) == "query"


def test_a_number_is_asked_for_in_the_published_words() -> None:
    wording = shown(NUMBER_FRAMING.render(a("text", "query"), a("image", "candidate")))

    assert wording == (
        "[candidate 0]Does the image match the caption: <the query>? Please directly output the "
        'relevance score in a format of "Answer: score" Keep four decimal places'
    )


def test_a_list_is_asked_about_in_the_published_words() -> None:
    wording = shown(
        LISTWISE_FRAMING.render(a("image", "query"), Content(texts=("a cat", "two\ndogs")))
    )

    assert wording == (
        "[query 0]What is in this picture?\nChoose the most relevant sentence of the image from "
        "the following options: 1: a cat, 2: two\ndogs. You should directly output the answer "
        "index, for example: 1."
    )


@pytest.mark.parametrize(
    ("query", "candidate", "wording"),
    [
        ("text", "image", "the query, [candidate 0]"),
        ("image", "text", "[query 0], the candidate"),
        ("both", "both", "[query 0]the query, [candidate 0]the candidate"),
    ],
)
def test_candidates_that_tie_are_asked_about_in_the_paper_s_words(
    query: str, candidate: str, wording: str
) -> None:
    prompt = TIE_FRAMING.render(a(query, "query"), a(candidate, "candidate"))

    assert shown(prompt) == f"{wording}. Does the candidate match the query, True or False."


def test_all_images_and_texts_of_a_side_are_shown_in_order() -> None:
    prompt = RETLLM.render(Content(texts=("one", "two")), Content(n_images=2))

    assert prompt.prefix[:2] == (
        ImageRef(side="candidate", index=0),
        ImageRef(side="candidate", index=1),
    )
    assert "<one\ntwo>" in shown(prompt)


def test_an_empty_side_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="a candidate of nothing") as refused:
        RETLLM.render(Content(texts=("a",)), Content())

    assert refused.value.reason == "no_prompt"


def test_an_unknown_framing_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="retllm"):
        framing("nonsense")


def test_a_prefix_cannot_hold_the_other_side() -> None:
    with pytest.raises(ValueError, match="QUERY_TEXT"):
        Template(
            shared_side="candidate",
            prefix=(Slot.CANDIDATE_IMAGES, Slot.QUERY_TEXT),
            suffix=(),
            published=False,
        )


def test_another_wording_is_another_digest() -> None:
    (kinds, template), *_ = RETLLM.templates.items()
    reworded = Template(
        shared_side=template.shared_side,
        prefix=template.prefix,
        suffix=(*template.suffix, "!"),
        published=False,
    )
    changed = Framing(
        name=RETLLM.name,
        version=RETLLM.version,
        labels=RETLLM.labels,
        templates={**RETLLM.templates, kinds: reworded},
    )
    relabelled = Framing(
        name=RETLLM.name,
        version=RETLLM.version,
        labels=Labels(positive="Yes", negative="No"),
        templates=RETLLM.templates,
    )

    assert len({RETLLM.digest, changed.digest, relabelled.digest}) == 3
