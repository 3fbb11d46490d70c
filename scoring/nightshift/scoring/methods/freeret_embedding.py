"""What FreeRet's embedder asks: one word for a content, under control (methods §3.1).

The state from which that word would be generated is the embedding. Three constraints steer it:
which relation matters (task alignment), what to look at (semantic grounding), and what not to
answer with (noise suppression). The published wording is that of the task `news`; the other
tasks fill the same places in our own words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from nightshift.schema.identity import fingerprint
from nightshift.schema.params import EmbedderParams
from nightshift.scoring.prompts import Kinds

__all__ = ["TASKS", "Task", "digest", "instruction"]

Role = Literal["query", "item"]

_E5V = "\n Summary above content in one word:"
_NOISE = "Do not use function words, prepositions, or symbols."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """What the request says of a query or of an item; `{shown}` becomes `image and text` etc."""

    basis: str = "the {shown}"
    content: str = "the {shown}"
    favor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How queries and items of one kind of search are related."""

    #: A sentence.
    relation: str
    query: _Side
    item: _Side


#: By name.
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "retrieval": Task(
            relation="You are required to assess if the query is related to the candidate.",
            query=_Side(),
            item=_Side(),
        ),
        "caption": Task(
            relation="You are required to assess if the image is related to the caption.",
            query=_Side(favor="the scene of the {shown}"),
            item=_Side(favor="the scene of the {shown}"),
        ),
        "news": Task(
            relation="You are required to assess if the news is related to the topic.",
            query=_Side(basis="Q", content="the image and news", favor="the topic of the news"),
            item=_Side(basis="sentence", content="the sentence", favor="the topic of the sentence"),
        ),
        "category": Task(
            relation="You are required to assess if the content is related to the category.",
            query=_Side(favor="the main object of the {shown}"),
            item=_Side(favor="the category"),
        ),
        "product": Task(
            relation="You are required to assess if the query is related to the product.",
            query=_Side(favor="the product of the {shown}"),
            item=_Side(favor="the product of the {shown}"),
        ),
    }
)


def instruction(params: EmbedderParams, role: Role, kinds: Kinds) -> str:
    """What follows a content; begins with a line feed.

    Args:
        params: Prompt and task.
        role: Whether the content is a query or an item.
        kinds: What it shows.
    """
    if params.prompt == "e5v":
        return _E5V
    task = TASKS[params.task]
    side = task.query if role == "query" else task.item
    shown = " and ".join(sorted(kinds))
    content = side.content.format(shown=shown)
    grounding = f"Capture the semantics of {content}."
    if side.favor:
        grounding += f" Favor {side.favor.format(shown=shown)}."
    request = f"Based on {side.basis.format(shown=shown)}, output one word:\n• {grounding}"
    if params.prompt in {"grounding_noise", "full"}:
        request += f"\n• {_NOISE}"
    return f"\n{task.relation} {request}" if params.prompt == "full" else f"\n{request}"


def digest(params: EmbedderParams) -> str:
    """Names every wording that these parameters can lead to: part of the fingerprint."""
    roles: tuple[Role, Role] = ("query", "item")
    kinds: tuple[Kinds, ...] = (
        frozenset({"text"}),
        frozenset({"image"}),
        frozenset({"text", "image"}),
    )
    wordings = [instruction(params, role, one) for role in roles for one in kinds]
    return fingerprint({"wordings": wordings})
