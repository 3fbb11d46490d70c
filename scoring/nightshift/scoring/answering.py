"""Answers from search results: the prompt, and the results that an answer cites."""

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["MAX_ANSWER_TOKENS", "MAX_RESULTS", "PROMPT_VERSION", "answer_prompt", "cited_results"]

#: The most results in a prompt, the best first.
MAX_RESULTS = 5
#: The most tokens of an answer.
MAX_ANSWER_TOKENS = 128
#: Increased when the wording below changes.
PROMPT_VERSION = 1

_P = TypeVar("_P")

_TASK = (
    "\nAnswer the query from these results alone, in one or two sentences. Cite every result that "
    "you use by its number, such as [1]. If none of them answers the query, say so."
)
_NUMBERS = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")


def answer_prompt(query: Sequence[_P], results: Sequence[Sequence[_P]]) -> Iterator[_P | str]:
    """Yield the parts of the prompt in reading order.

    Args:
        query: The parts of the query, images before texts.
        results: The parts of each result, the best result first.
    """
    yield "Results of a search, the best first."
    for number, parts in enumerate(results, 1):
        yield f"\n[{number}] "
        yield from parts
    yield "\nQuery: "
    yield from query
    yield _TASK


def cited_results(answer: str, n_results: int) -> tuple[int, ...]:
    """Positions, from 0, of the results that an answer cites, in order of first mention.

    Numbers that no result has are ignored.
    """
    numbers = [int(n) for citation in _NUMBERS.findall(answer) for n in citation.split(",")]
    return tuple(dict.fromkeys(n - 1 for n in numbers if 1 <= n <= n_results))
