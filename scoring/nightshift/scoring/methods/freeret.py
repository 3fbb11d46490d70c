"""FreeRet (Zhu et al., ICML 2026, arXiv 2509.24621): re-ranking by a neutral multiple choice.

The model that embedded the catalogue is asked about each pair, query first, whether the candidate
matches: "A. Yes … B. No …". Words such as "yes" or "right" bias the answer; letters hardly do. The
margin is the logit of the matching answer minus that of the other. Prompt: methods §3.2.
"""

from collections.abc import Iterator
from itertools import product
from types import MappingProxyType

from nightshift.schema.params import EnhancementParams, Kinds
from nightshift.scoring.methods.method import Method
from nightshift.scoring.prompts import Framing, Labels, Side, Slot, Template

__all__ = ["FREERET"]

_TASK = "Task: Determine whether the candidate matches the query.\n"
_MATCHES = "Yes, the candidate fully matches the query."
_DIFFERS = "No, the candidate does not match or only partially matches."

#: By name of the label set: positive and negative label. Only the first is the paper's own choice;
#: the others it compares with.
_LABELS = {
    "mcq": ("A", "B"),
    "true_false": ("True", "False"),
    "yes_no": ("Yes", "No"),
    "right_wrong": ("Right", "Wrong"),
}

_KINDS: tuple[Kinds, ...] = (
    frozenset({"text"}),
    frozenset({"image"}),
    frozenset({"text", "image"}),
)
_SLOTS: dict[Side, tuple[Slot, Slot]] = {
    "query": (Slot.QUERY_IMAGES, Slot.QUERY_TEXT),
    "candidate": (Slot.CANDIDATE_IMAGES, Slot.CANDIDATE_TEXT),
}


def _framing(labels: str, first: Side, *, swapped: bool = False) -> Framing:
    """The question with the given side first, hence shared by a group."""
    positive, negative = _LABELS[labels]
    if labels == "mcq":
        answers = (_DIFFERS, _MATCHES) if swapped else (_MATCHES, _DIFFERS)
        question = f"\nA. {answers[0]}\nB. {answers[1]}"
        if swapped:
            positive, negative = negative, positive
    else:
        named_first, named_second = (negative, positive) if swapped else (positive, negative)
        question = (
            "\nDoes the candidate fully match the query? "
            f"Reply only with {named_first!r} or {named_second!r}."
        )
    return Framing(
        name="_".join(["freeret", *_variant(labels, first)]) + ("_swapped" if swapped else ""),
        version="1",
        labels=Labels(positive=positive, negative=negative),
        templates=MappingProxyType(dict(_templates(first, question, published=labels == "mcq"))),
    )


def _variant(labels: str, first: Side) -> Iterator[str]:
    if first == "candidate":
        yield "candidate_first"
    if labels != "mcq":
        yield labels


def _templates(
    first: Side, question: str, *, published: bool
) -> Iterator[tuple[tuple[Kinds, Kinds], Template]]:
    second: Side = "candidate" if first == "query" else "query"
    for query, candidate in product(_KINDS, _KINDS):
        kinds: dict[Side, Kinds] = {"query": query, "candidate": candidate}
        yield (
            (query, candidate),
            Template(
                shared_side=first,
                prefix=(f"{_TASK}{first.title()}: ", *_shown(first, kinds[first]),
                        f"\n{second.title()}:"),
                suffix=(" ", *_shown(second, kinds[second]), question),
                published=published and first == "query",
            ),
        )  # fmt: skip


def _shown(side: Side, kinds: Kinds) -> Iterator[Slot]:
    for kind, slot in zip(("image", "text"), _SLOTS[side], strict=True):
        if kind in kinds:
            yield slot


_SIDES: tuple[Side, ...] = ("query", "candidate")
_FRAMINGS = {(labels, first): _framing(labels, first) for first, labels in product(_SIDES, _LABELS)}

FREERET = Method(
    name="freeret",
    framings=tuple(_FRAMINGS.values()),
    swapped=MappingProxyType(
        {framing_.name: _framing(*how, swapped=True) for how, framing_ in _FRAMINGS.items()}
    ),
    depth=50,
    quantum=0.0,
    enhancement=EnhancementParams(trigger="never"),
)
