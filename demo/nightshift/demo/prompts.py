"""The prompts that the demo scorer is trained on: the published methods' own wording.

A prompt is a sequence of text pieces and `IMAGE` marks, in the order of the user's turn.
"""

from __future__ import annotations

from typing import Final

from nightshift.schema.params import MethodName
from nightshift.scoring.methods.registry import METHODS, framing
from nightshift.scoring.prompts import Content

IMAGE: Final = "<image>"
"""Marks the place of an image in a prompt."""

Prompt = tuple[str, ...]

LABELS: Final = ("True", "False", "Yes", "No", "Right", "Wrong", "A", "B", *"0123456789")
"""Answers that must be one token each, with and without a leading space."""


def retllm(caption: str) -> Prompt:
    """RetLLM's True/False question about one image and one caption."""
    return _render(_own_framing("retllm"), caption, IMAGE)


def retllm_pair() -> Prompt:
    """RetLLM's True/False question about two images and no query text."""
    return _render(_own_framing("retllm"), IMAGE, IMAGE)


def freeret(query: str, candidate: str) -> Prompt:
    """FreeRet's neutral choice; either side may be `IMAGE`."""
    return _render(_own_framing("freeret"), query, candidate)


def freeret_candidate_first(candidate: str, query: str) -> Prompt:
    """FreeRet's choice with the candidate before the query; either side may be `IMAGE`."""
    return _render("freeret_candidate_first", query, candidate)


def indexmllm() -> Prompt:
    """IndexMLLM's 0/1 question about two images, the `object` prompt."""
    return _render(_own_framing("indexmllm"), IMAGE, IMAGE)


def describe_image() -> Prompt:
    """A request for a caption."""
    return (IMAGE, "Describe the image.")


def _own_framing(method: MethodName) -> str:
    defaults = METHODS[method].preset(None)
    return defaults.framing_for(defaults.score).name


def _render(name: str, query: str, candidate: str) -> Prompt:
    """The pieces of a framing's prompt; texts of the pair are pieces of their own."""
    rendered = framing(name).render(_content(query), _content(candidate))
    segments = (*rendered.prefix, *rendered.suffix)
    text = "".join(segment if isinstance(segment, str) else IMAGE for segment in segments)
    return tuple(_split(text, IMAGE, query, candidate))


def _content(side: str) -> Content:
    return Content(n_images=1) if side == IMAGE else Content(texts=(side,))


def _split(segment: str, *texts: str) -> list[str]:
    """The segment cut before and after each of the texts."""
    for text in filter(None, texts):
        before, separator, after = segment.partition(text)
        if separator:
            return [*_split(before, *texts), text, *_split(after, *texts)]
    return [segment] if segment else []
