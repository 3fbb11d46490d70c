"""The prompts that the demo scorer is trained on: the published methods' own wording.

A prompt is a sequence of text pieces and `IMAGE` marks, in the order of the user's turn.
"""

from __future__ import annotations

from typing import Final

IMAGE: Final = "<image>"
"""Marks the place of an image in a prompt."""

Prompt = tuple[str, ...]

LABELS: Final = ("True", "False", "Yes", "No", "Right", "Wrong", "A", "B", *"0123456789")
"""Answers that must be one token each, with and without a leading space."""

_FREERET_TASK: Final = "Task: Determine whether the candidate matches the query.\n"
_FREERET_TAIL: Final = (
    "\nA. Yes, the candidate fully matches the query."
    "\nB. No, the candidate does not match or only partially matches."
)
_OBJECT: Final = """
You are given two images: a query and a candidate. Determine whether the exact same object \
instance from the query image is present in the candidate image.
* The instance must be the same, not just a similar object.
* The instance may appear at a different scale, partially occluded, or among other objects.

Output strictly a single digit:
0 = the object instance does not appear
1 = the object instance appears in the candidate

Do not output anything else.
"""


def retllm(caption: str) -> Prompt:
    """RetLLM's True/False question about one image and one caption."""
    return (
        IMAGE,
        "Does the image match the caption: <",
        caption,
        ">? Please directly output True or False",
    )


def retllm_pair() -> Prompt:
    """RetLLM's True/False question about two images and no query text."""
    return (
        "Query image",
        IMAGE,
        "Candidate image",
        IMAGE,
        "Does the candidate image match the query image? Please directly output True or False",
    )


def freeret(query: str, candidate: str) -> Prompt:
    """FreeRet's neutral choice; either side may be `IMAGE`."""
    return (_FREERET_TASK, "Query: ", query, "\nCandidate: ", candidate, _FREERET_TAIL)


def freeret_candidate_first(candidate: str, query: str) -> Prompt:
    """FreeRet's choice with the candidate before the query; either side may be `IMAGE`."""
    return (_FREERET_TASK, "Candidate: ", candidate, "\nQuery: ", query, _FREERET_TAIL)


def indexmllm() -> Prompt:
    """IndexMLLM's 0/1 question about two images, the `object` prompt."""
    return (IMAGE, IMAGE, _OBJECT)


def describe_image() -> Prompt:
    """A request for a caption."""
    return (IMAGE, "Describe the image.")
