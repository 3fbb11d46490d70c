"""RetLLM's prompts: the published ones, and ours in the same form (methods §1.3)."""

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

from nightshift.schema.params import Kinds
from nightshift.scoring.prompts import Framing, Labels, Slot, Template

__all__ = ["LISTWISE_FRAMING", "NUMBER_FRAMING", "TIE_FRAMING", "TRUE_FALSE_FRAMING"]

_TEXT: Kinds = frozenset({"text"})
_IMAGE: Kinds = frozenset({"image"})
_BOTH: Kinds = frozenset({"text", "image"})
#: How an answer is asked for: of one of two words, and of a number.
_TRUE_OR_FALSE = " Please directly output True or False"
_NUMBER = (
    ' Please directly output the relevance score in a format of "Answer: score" '
    "Keep four decimal places"
)
#: Both images precede the question; the query's comes first and is shared.
_TWO_IMAGES = ("Query image", Slot.QUERY_IMAGES, "Candidate image")


def _pairwise(answer: str) -> Mapping[tuple[Kinds, Kinds], Template]:
    """The nine questions about a pair."""
    return {
        (_TEXT, _IMAGE): _about_one_image(answer, side=Slot.CANDIDATE_IMAGES, text=Slot.QUERY_TEXT),
        # Published for text→image; the paper scores image→text pairs alike, its code list-wise.
        (_IMAGE, _TEXT): _about_one_image(answer, side=Slot.QUERY_IMAGES, text=Slot.CANDIDATE_TEXT),
        **_about_two_images(answer),
        (_TEXT, _BOTH): Template(
            shared_side="candidate",
            prefix=(
                Slot.CANDIDATE_IMAGES,
                "Does the image with the caption: <",
                Slot.CANDIDATE_TEXT,
                "> match the query:",
            ),
            suffix=(" <", Slot.QUERY_TEXT, ">?" + answer),
            published=False,
        ),
        (_BOTH, _TEXT): Template(
            shared_side="query",
            prefix=(
                Slot.QUERY_IMAGES,
                "Does the image with the query text: <",
                Slot.QUERY_TEXT,
                "> match the caption:",
            ),
            suffix=(" <", Slot.CANDIDATE_TEXT, ">?" + answer),
            published=False,
        ),
        (_TEXT, _TEXT): Template(
            shared_side="query",
            prefix=("Does the query: <", Slot.QUERY_TEXT, "> match the text:"),
            suffix=(" <", Slot.CANDIDATE_TEXT, ">?" + answer),
            published=False,
        ),
    }


def _about_one_image(answer: str, *, side: Slot, text: Slot) -> Template:
    return Template(
        shared_side="candidate" if side is Slot.CANDIDATE_IMAGES else "query",
        prefix=(side, "Does the image match the caption:"),
        suffix=(" <", text, ">?" + answer),
        published=True,
    )


def _about_two_images(answer: str) -> Mapping[tuple[Kinds, Kinds], Template]:
    """The four questions about a pair with an image on both sides."""
    return {
        (_BOTH, _IMAGE): Template(
            shared_side="query",
            prefix=_TWO_IMAGES,
            suffix=(
                Slot.CANDIDATE_IMAGES,
                "Does the candidate image match the Query text: <",
                Slot.QUERY_TEXT,
                "> and query image?" + answer,
            ),
            published=answer == _TRUE_OR_FALSE,
        ),
        (_BOTH, _BOTH): Template(
            shared_side="query",
            prefix=_TWO_IMAGES,
            suffix=(
                Slot.CANDIDATE_IMAGES,
                "Does the Candidate image and Candidate image caption :",
                Slot.CANDIDATE_TEXT,
                " are match the Query image and the Query caption :",
                Slot.QUERY_TEXT,
                "?" + answer,
            ),
            published=answer == _TRUE_OR_FALSE,
        ),
        (_IMAGE, _IMAGE): Template(
            shared_side="query",
            prefix=_TWO_IMAGES,
            suffix=(
                Slot.CANDIDATE_IMAGES,
                "Does the candidate image match the query image?" + answer,
            ),
            published=False,
        ),
        (_IMAGE, _BOTH): Template(
            shared_side="query",
            prefix=_TWO_IMAGES,
            suffix=(
                Slot.CANDIDATE_IMAGES,
                "Does the candidate image with the caption: <",
                Slot.CANDIDATE_TEXT,
                "> match the query image?" + answer,
            ),
            published=False,
        ),
    }


def _listed() -> Mapping[tuple[Kinds, Kinds], Template]:
    """One question about all candidates: text only, numbered from 1."""
    options = "Choose the most relevant sentence of the image from the following options:"
    begins = {
        _IMAGE: (Slot.QUERY_IMAGES, f"What is in this picture?\n{options}"),
        # As published for queries with a text: it takes the place of the first sentence.
        _BOTH: (Slot.QUERY_IMAGES, Slot.QUERY_TEXT, f"\n{options}"),
        _TEXT: (Slot.QUERY_TEXT, f"\n{options.replace(' of the image', '')}"),
    }
    request = ". You should directly output the answer index, for example: 1."
    return {
        (query, _TEXT): Template(
            shared_side="query",
            prefix=prefix,
            suffix=(" ", Slot.CANDIDATE_LIST, request),
            published=query == _IMAGE,
        )
        for query, prefix in begins.items()
    }


def _tied() -> Mapping[tuple[Kinds, Kinds], Template]:
    """The paper's second question, about candidates whose scores tie."""
    slots = {
        _TEXT: (Slot.QUERY_TEXT, Slot.CANDIDATE_TEXT),
        _IMAGE: (Slot.QUERY_IMAGES, Slot.CANDIDATE_IMAGES),
    }

    def shown(kinds: Kinds, side: int) -> tuple[Slot, ...]:
        return tuple(slots[kind][side] for kind in (_IMAGE, _TEXT) if kind <= kinds)

    templates = {}
    for query, candidate in product((_TEXT, _IMAGE, _BOTH), repeat=2):
        parts: tuple[str | Slot, ...] = (
            *shown(query, 0),
            ", ",
            *shown(candidate, 1),
            ". Does the candidate match the query, True or False.",
        )
        # Only an image ends where tokens end.
        cut = int(parts[0] is Slot.QUERY_IMAGES)
        templates[query, candidate] = Template(
            shared_side="query", prefix=parts[:cut], suffix=parts[cut:], published=True
        )
    return templates


_LABELS = Labels(positive="True", negative="False")

#: Asks for True or False.
TRUE_FALSE_FRAMING = Framing(
    name="retllm",
    version="1",
    labels=_LABELS,
    templates=MappingProxyType(_pairwise(_TRUE_OR_FALSE)),
)
#: Asks for a number, to be generated and parsed.
NUMBER_FRAMING = Framing(
    name="retllm_number",
    version="1",
    asks_for="number",
    labels=_LABELS,
    templates=MappingProxyType(_pairwise(_NUMBER)),
)
#: Asks for the number of the best of a list.
LISTWISE_FRAMING = Framing(
    name="retllm_listwise",
    version="1",
    asks_for="index",
    labels=Labels(positive="1", negative="2"),
    templates=MappingProxyType(_listed()),
)
#: Asks for True or False where generated numbers tie; only its entropy is read.
TIE_FRAMING = Framing(
    name="retllm_tie", version="1", labels=_LABELS, templates=MappingProxyType(_tied())
)
