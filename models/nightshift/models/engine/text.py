"""Text that is only text, and the chat template around it."""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from nightshift.schema.errors import ModelError

__all__ = ["TextEncoder", "Turn", "read_turn"]

# No tokenizer holds it, no template swallows it.
_MARK = "\u2060\u2061\u2062"


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
        control = {token["content"]: int(token["id"]) for token in backend["added_tokens"]}
        self._tokenizer = Tokenizer.from_str(
            json.dumps({**backend, "added_tokens": [], "truncation": None, "padding": None})
        )
        self._name = name
        for content in control:
            if not set(control.values()).isdisjoint(self.ids(content)):
                raise ModelError(
                    f"the tokenizer of {name} cannot write {content!r} as text: a caption with it "
                    "would steer the model",
                    name,
                )

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def label(self, text: str) -> int:
        """The one token that is this label.

        Raises:
            ModelError: It takes more tokens, so its logit cannot be read at one position.
        """
        ids = self.ids(text)
        if len(ids) != 1:
            raise ModelError(
                f"the label {text!r} takes {len(ids)} tokens of {self._name}, not one: choose a "
                "framing with other labels",
                self._name,
            )
        return ids[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Token ids of the chat template around one user turn, generation prompt included."""

    #: What precedes the user's content.
    head: tuple[int, ...]
    #: What stands around the token of one picture.
    picture: tuple[int, ...]
    #: What follows the user's content, to where the answer begins.
    tail: tuple[int, ...]


def read_turn(processor: ProcessorMixin, name: str) -> Turn:
    """Take the checkpoint's chat template apart.

    Raises:
        ModelError: It has none, or it does not keep content in order.
    """
    text = {"type": "text", "text": _MARK}
    message: Any = {"role": "user", "content": [text, {"type": "image"}, text]}
    try:
        rendered: str = processor.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{name} has no usable chat template: {error}", name) from error
    parts = rendered.split(_MARK)
    if len(parts) != 3:
        raise ModelError(f"the chat template of {name} does not keep text and image in order", name)
    head, picture, tail = (
        # Trusted text: here special tokens are meant as such.
        tuple(processor.tokenizer(part, add_special_tokens=False)["input_ids"])
        for part in parts
    )
    return Turn(head=head, picture=picture, tail=tail)
