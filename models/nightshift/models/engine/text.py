"""Text that is only text, and the chat template around it."""

import json
import re
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from nightshift.schema.errors import ModelError

__all__ = ["TextEncoder", "Turn", "Written", "read_turn"]

# No tokenizer holds it, no template swallows it.
_MARK = "\u2060\u2061\u2062"

#: A part of a prompt: ids of control tokens, and ordinary text. Text that meets text is tokenised
#: as one, as a processor would.
Written = tuple[int | str, ...]


class TextEncoder:
    """Encodes text so that no control token can come out of it, whatever the text says.

    A copy of the checkpoint's tokenizer without its added tokens: `<|im_end|>` in a caption
    becomes ordinary tokens. Any thread may use it.

    Args:
        tokenizer: The checkpoint's own.
        name: The model, for messages.

    Raises:
        ModelError: A control token's text still encodes to a control token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        # Some vocabularies add runs of line breaks: no harm comes of them.
        blank = [token for token in backend["added_tokens"] if token["content"].isspace()]
        control = [token for token in backend["added_tokens"] if token not in blank]
        plain = {
            **backend,
            "added_tokens": blank,
            "truncation": None,
            "padding": None,
            "pre_tokenizer": _mid_prompt(backend["pre_tokenizer"]),
        }
        self._tokenizer = Tokenizer.from_str(json.dumps(plain))
        self._name = name
        #: What stands between the end of a prompt and an answer: nothing, or a space.
        self.answer_lead = ""
        self._control = {token["content"]: token for token in control}
        longest_first = sorted(map(re.escape, self._control), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(longest_first)})" if control else "(?!)")
        #: What a template or processor wrote: a control token in it is meant as such. Vocabularies
        #: may have thousands of those, and pictures are mostly written alike.
        self.trusted = lru_cache(maxsize=1024)(self._trusted)
        special = {int(token["id"]) for token in control if token["special"]}
        for content in self._control:
            if not special.isdisjoint(self.ids(content)):
                raise ModelError(
                    f"the tokenizer of {name} cannot write {content!r} as text: a caption with it "
                    "would steer the model",
                    name,
                )

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def read(self, ids: Iterable[int]) -> str:
        """The text of generated ids, control tokens left out."""
        control = {int(token["id"]) for token in self._control.values()}
        text: str = self._tokenizer.decode([one for one in ids if one not in control])
        return text

    def join(self, written: Iterable[int | str]) -> list[int]:
        """Token ids of a prompt, or of a part of one."""
        ids: list[int] = []
        for is_text, run in groupby(written, key=lambda one: isinstance(one, str)):
            found = list(run)
            ids += self.ids("".join(map(str, found))) if is_text else map(int, found)
        return ids

    def label(self, text: str) -> int:
        """The one token that is this label at the beginning of an answer.

        Raises:
            ModelError: It takes more tokens, so its logit cannot be read at one position.
        """
        ids = self.ids(self.answer_lead + text)
        if len(ids) != 1:
            raise ModelError(
                f"{self._counted(text)}: choose a framing with other labels", self._name
            )
        return ids[0]

    def apart(self, labels: Sequence[str]) -> tuple["TextEncoder", tuple[int, ...]]:
        """How these labels are one token each, and what prompts then end with.

        Where the space before an answer makes two tokens of a label, as many tokenizers do with
        digits, and is a token of its own, prompts end with it, and bare labels are read.

        Returns:
            The encoder whose `label` reads each of them, and the ids that end the prompt.

        Raises:
            ModelError: A label takes more tokens than one either way.
        """
        led = [self.answer_lead + label for label in labels]
        if not self._single(led) and self._single([self.answer_lead, *labels]):
            bare = copy(self)
            bare.answer_lead = ""
            return bare, tuple(self.ids(self.answer_lead))
        for label in labels:
            self.label(label)
        return self, ()

    def _single(self, texts: Iterable[str]) -> bool:
        return all(len(self.ids(text)) == 1 for text in texts)

    def _counted(self, label: str) -> str:
        """A label that is no single token, as this model answers and the other way."""
        needed = self.answer_lead + label
        other = label if self.answer_lead else f" {label}"
        return (
            f"the label {needed!r} takes {len(self.ids(needed))} tokens of {self._name}, not one "
            f"(as its chat template begins an answer; {other!r} takes {len(self.ids(other))})"
        )

    def _trusted(self, text: str) -> Written:
        parts: list[int | str] = []
        swallow = False
        for part in self._split.split(text):
            token = self._control.get(part)
            if token is None:
                parts.append(part.lstrip() if swallow else part)
                swallow = False
                continue
            if token["lstrip"] and isinstance(parts[-1], str):
                parts[-1] = parts[-1].rstrip()
            parts.append(int(token["id"]))
            swallow = token["rstrip"]
        return tuple(part for part in parts if part != "")


def _mid_prompt(pre_tokenizer: Any) -> Any:  # noqa: ANN401 - a part of a tokenizer's JSON
    """The same, for texts that stand behind others: Llama's puts a sign before the first of all."""
    match pre_tokenizer:
        case {"type": "Sequence", "pretokenizers": steps}:
            return {**pre_tokenizer, "pretokenizers": [_mid_prompt(step) for step in steps]}
        case {"type": "Metaspace", "prepend_scheme": "first"}:
            return {**pre_tokenizer, "prepend_scheme": "never"}
    return pre_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The chat template around one user turn, generation prompt included."""

    #: What precedes the user's content where that begins with a text,
    text_head: Written
    #: and where it begins with a picture.
    picture_head: Written
    #: What stands before and behind each picture.
    before: Written
    after: Written
    #: What follows the user's content, to where the answer begins.
    tail: Written
    #: What the template puts before the answer's text: nothing, or a space.
    answer_lead: str


def read_turn(processor: ProcessorMixin, text: TextEncoder, placeholder: str, name: str) -> Turn:
    """Take the checkpoint's chat template apart.

    A template that moves pictures to the front is read there; a picture between texts then stands
    in its place, with what the template puts around the one at the front.

    Args:
        processor: The checkpoint's own.
        text: Its tokenizer.
        placeholder: What a template writes for a picture.
        name: The model, for messages.

    Raises:
        ModelError: It has none, or it marks a picture otherwise.
    """
    said = {"text": {"type": "text", "text": _MARK}, "image": {"type": "image"}}

    def rendered(*content: str, answered: bool = False) -> str:
        messages: Any = [{"role": "user", "content": [said[kind] for kind in content]}]
        if answered:
            messages.append({"role": "assistant", "content": [said["text"]]})
        try:
            found: str = processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not answered
            )
        except Exception as error:  # whatever a template or its interpreter raises
            raise ModelError(f"{name} has no usable chat template: {error}", name) from error
        return found

    alone, first = rendered("text").split(_MARK), rendered("image", "text").split(_MARK)
    if len(alone) != 2 or len(first) != 2 or first[0].count(placeholder) != 1:
        raise ModelError(f"the chat template of {name} does not mark a picture once", name)
    head, after = first[0].split(placeholder)
    between, before = rendered("text", "image", "text").split(_MARK)[1:-1], ""
    if between and placeholder in between[0]:
        before, after = between[0].split(placeholder)
    if alone[1].rfind("<think>") > alone[1].rfind("</think>"):
        raise ModelError(
            f"the chat template of {name} begins each answer with thoughts, and answers are read "
            "where they begin: take the Instruct model",
            name,
        )
    answered = rendered("text", answered=True).split(_MARK)
    return Turn(
        text_head=text.trusted(alone[0]),
        picture_head=text.trusted(head.removesuffix(before)),
        before=text.trusted(before),
        after=text.trusted(after),
        tail=text.trusted(alone[1]),
        answer_lead=" " if answered[1:2] == [f"{alone[1]} "] else "",
    )
