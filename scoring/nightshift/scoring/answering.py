"""Answers from search results: what the model is asked, and which results it then cites."""

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["MAX_ANSWER_TOKENS", "MAX_RESULTS", "PROMPT_VERSION", "answer_prompt", "cited_results"]

#: Results that are shown with a query, the best first.
MAX_RESULTS = 5
#: Tokens of an answer at the most.
MAX_ANSWER_TOKENS = 128
#: Raised when the wording below changes.
PROMPT_VERSION = 1

_P = TypeVar("_P")

_TASK = (
    "\nAnswer the query from these results alone, in one or two sentences. Cite every result that "
    "you use by its number, such as [1]. If none of them answers the query, say so."
)
_NUMBERS = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")


def answer_prompt(query: Sequence[_P], results: Sequence[Sequence[_P]]) -> Iterator[_P | str]:
    """The prompt, in reading order.

    Args:
        query: Its parts, pictures before texts.
        results: Parts of each, the best result first.
    """
    yield "Results of a search, the best first."
    for number, parts in enumerate(results, 1):
        yield f"\n[{number}] "
        yield from parts
    yield "\nQuery: "
    yield from query
    yield _TASK


def cited_results(answer: str, n_results: int) -> tuple[int, ...]:
    """Places from 0 of the results that an answer cites, in order of first mention.

    Numbers that no result has are left out.
    """
    numbers = [int(n) for found in _NUMBERS.findall(answer) for n in found.split(",")]
    return tuple(dict.fromkeys(n - 1 for n in numbers if 1 <= n <= n_results))
