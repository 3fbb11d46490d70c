"""The chat template around one user turn, taken apart."""

from dataclasses import dataclass
from typing import Any

from transformers import ProcessorMixin

from nightshift.models.engine.chat_template import render_chat
from nightshift.models.engine.text import PromptParts, TextEncoder
from nightshift.schema.errors import ModelError

__all__ = ["Turn", "read_turn"]

# No tokenizer holds it, no template swallows it.
_MARK = "\u2060\u2061\u2062"
# In place of a text: an image.
_IMAGE = ""
# What templates that strip texts strip.
_SPACE = "\n \n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The chat template around one user turn, generation prompt included."""

    #: What the tokenizer adds before all of it: a BOS that the template does not write.
    added: tuple[int, ...] = ()
    #: What precedes the user's content where that begins with a text,
    text_head: PromptParts
    #: and where it begins with an image.
    image_head: PromptParts
    #: What stands before an image, and between it and a text behind it.
    before: PromptParts
    after: PromptParts
    #: What stands between two images side by side.
    between: PromptParts
    #: Whether it strips the spaces and line breaks that a text of the content begins with,
    strips_left: bool = False
    #: and those that it ends with.
    strips_right: bool = False
    #: What follows the user's content, to where the answer begins.
    tail: PromptParts
    #: What the template puts before the answer's text: nothing, or a space.
    answer_lead: str


def read_turn(processor: ProcessorMixin, text: TextEncoder, placeholder: str, name: str) -> Turn:
    """Take the checkpoint's chat template apart.

    A template that moves images to the front is read there; an image between texts then stands
    in its place, with what the template puts around the one at the front.

    Args:
        processor: The checkpoint's own.
        text: Its tokenizer.
        placeholder: What a template writes for an image.
        name: The model, for messages.

    Raises:
        ModelError: It has none, or it marks an image otherwise.
    """
    tokenizer: Any = processor

    def rendered(*content: str, answered: bool = False) -> str:
        messages: Any = [{"role": "user", "content": [_part(kind) for kind in content]}]
        if answered:
            messages.append({"role": "assistant", "content": [_part(_MARK)]})
        return render_chat(processor, messages, name, add_generation_prompt=not answered)

    text_only, first = rendered(_MARK).split(_MARK), rendered(_IMAGE, _MARK).split(_MARK)
    if len(text_only) != 2 or len(first) != 2 or first[0].count(placeholder) != 1:
        raise ModelError(f"the chat template of {name} does not mark an image once", name)
    head, after = first[0].split(placeholder)
    inner, before = rendered(_MARK, _IMAGE, _MARK).split(_MARK)[1:-1], ""
    if inner and placeholder in inner[0]:
        before, after = inner[0].split(placeholder)
    if text_only[1].rfind("<think>") > text_only[1].rfind("</think>"):
        raise ModelError(
            f"the chat template of {name} begins each answer with thoughts, and answers are read "
            "where they begin: take the Instruct model",
            name,
        )
    beside = rendered(_IMAGE, _IMAGE, _MARK).split(placeholder)
    between = beside[1] if len(beside) == 3 else after + before
    spaced = rendered(_SPACE + _MARK + _SPACE).split(_MARK)
    answered = rendered(_MARK, answered=True).split(_MARK)
    return Turn(
        added=text.added(tokenizer.tokenizer, text_only[0]),
        text_head=text.trusted(text_only[0]),
        image_head=text.trusted(head.removesuffix(before)),
        before=text.trusted(before),
        after=text.trusted(after),
        between=text.trusted(between),
        strips_left=spaced[0] == text_only[0],
        strips_right=spaced[1:] == text_only[1:],
        tail=text.trusted(text_only[1]),
        answer_lead=" " if answered[1:2] == [f"{text_only[1]} "] else "",
    )


def _part(said: str) -> dict[str, str]:
    return {"type": "image"} if said == _IMAGE else {"type": "text", "text": said}
