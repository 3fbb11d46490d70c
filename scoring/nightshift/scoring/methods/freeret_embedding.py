"""The request of FreeRet's embedder: one word for a content, under control (methods §3.1).

The state from which that word would be generated is the embedding. Three constraints steer it:
which relation matters (task alignment), what to look at (semantic grounding), and what not to
answer with (noise suppression). The published wording is that of the task `news`; the other
tasks fill the same places in our own words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nightshift.schema.identity import fingerprint
from nightshift.schema.params import EmbedderParams, Kinds
from nightshift.scoring.prompts import Side

__all__ = ["TASKS", "Task", "digest", "instruction"]

_E5V = "\n Summary above content in one word:"
_NOISE = "Do not use function words, prepositions, or symbols."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wording:
    """The request's words for a query or an item; `{shown}` becomes `image and text` etc."""

    basis: str = "the {shown}"
    content: str = "the {shown}"
    favor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The relation of queries and items in one kind of search."""

    #: A sentence.
    relation: str
    query: _Wording
    item: _Wording


#: By name.
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "retrieval": Task(
            relation="You are required to assess if the query is related to the candidate.",
            query=_Wording(),
            item=_Wording(),
        ),
        "caption": Task(
            relation="You are required to assess if the image is related to the caption.",
            query=_Wording(favor="the scene of the {shown}"),
            item=_Wording(favor="the scene of the {shown}"),
        ),
        "news": Task(
            relation="You are required to assess if the news is related to the topic.",
            query=_Wording(basis="Q", content="the image and news", favor="the topic of the news"),
            item=_Wording(
                basis="sentence", content="the sentence", favor="the topic of the sentence"
            ),
        ),
        "category": Task(
            relation="You are required to assess if the content is related to the category.",
            query=_Wording(favor="the main object of the {shown}"),
            item=_Wording(favor="the category"),
        ),
        "product": Task(
            relation="You are required to assess if the query is related to the product.",
            query=_Wording(favor="the product of the {shown}"),
            item=_Wording(favor="the product of the {shown}"),
        ),
    }
)


def instruction(params: EmbedderParams, side: Side, kinds: Kinds) -> str:
    """The request that follows a content; begins with a line feed.

    Args:
        params: Prompt and task.
        side: Whether the content is a query or a candidate.
        kinds: The kinds of its parts.
    """
    if params.prompt == "e5v":
        return _E5V
    task = TASKS[params.task]
    wording = task.query if side == "query" else task.item
    shown = " and ".join(sorted(kinds))
    content = wording.content.format(shown=shown)
    grounding = f"Capture the semantics of {content}."
    if wording.favor:
        grounding += f" Favor {wording.favor.format(shown=shown)}."
    request = f"Based on {wording.basis.format(shown=shown)}, output one word:\n• {grounding}"
    if params.prompt in {"grounding_noise", "full"}:
        request += f"\n• {_NOISE}"
    return f"\n{task.relation} {request}" if params.prompt == "full" else f"\n{request}"


def digest(params: EmbedderParams) -> str:
    """Names every wording that these parameters can lead to: part of the fingerprint."""
    sides: tuple[Side, Side] = ("query", "candidate")
    kinds: tuple[Kinds, ...] = (
        frozenset({"text"}),
        frozenset({"image"}),
        frozenset({"text", "image"}),
    )
    wordings = [instruction(params, side, shown) for side in sides for shown in kinds]
    return fingerprint({"wordings": wordings})
