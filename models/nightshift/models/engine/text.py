"""Text that is only text: no control token comes out of it."""

import json
import re
from collections.abc import Iterable, Sequence
from copy import copy
from functools import lru_cache
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from nightshift.schema.errors import ModelError

__all__ = ["PromptParts", "TextEncoder"]

#: A part of a prompt: ids of control tokens, and ordinary text. Text that meets text is tokenised
#: as one, as a processor would.
PromptParts = tuple[int | str, ...]


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
        # For the text that a prompt begins with, if it begins with any.
        self._first = self._tokenizer
        if plain["pre_tokenizer"] != backend["pre_tokenizer"]:
            plain["pre_tokenizer"] = backend["pre_tokenizer"]
            self._first = Tokenizer.from_str(json.dumps(plain))
        self._name = name
        #: The text that prompts end with, behind their last control token.
        self.answer_behind = ""
        #: What stands between the end of a prompt and an answer: nothing, or a space.
        self.answer_lead = ""
        #: Tokens that swallow the spaces in front of them, and those behind them.
        self._swallow_left = {int(token["id"]) for token in control if token["lstrip"]}
        self._swallow_right = {int(token["id"]) for token in control if token["rstrip"]}
        self._control = {token["content"]: token for token in control}
        longest_first = sorted(map(re.escape, self._control), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(longest_first)})" if control else "(?!)")
        #: What a template or processor wrote: a control token in it is meant as such. Vocabularies
        #: may have thousands of those, and images are mostly written alike.
        self.trusted = lru_cache(maxsize=1024)(self._trusted)
        special = {int(token["id"]) for token in control if token["special"]}
        for content in self._control:
            if not special.isdisjoint(self.ids(content)):
                raise ModelError(
                    f"the tokenizer of {name} cannot write {content!r} as text: a caption with it "
                    "would steer the model",
                    name,
                )

    def ids(self, text: str, *, first: bool = False) -> list[int]:
        """Token ids of a text, nothing added.

        Args:
            text: Ordinary text.
            first: Whether it begins a prompt: some tokenizers put a sign before such a text.
        """
        tokenizer = self._first if first else self._tokenizer
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def added(self, tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[int, ...]:
        """Tokens that a processor puts before a prompt whose template does not write them: a BOS.

        Args:
            tokenizer: The checkpoint's own.
            prompt: As its template begins one.
        """
        bos = tokenizer.bos_token
        if isinstance(bos, str) and bos and prompt.startswith(bos):
            return ()
        bare = tokenizer("x", add_special_tokens=False)["input_ids"]
        complete = tokenizer("x", add_special_tokens=True)["input_ids"]
        places = range(len(complete) - len(bare) + 1)
        start = next((i for i in places if complete[i : i + len(bare)] == bare), 0)
        added = tuple(map(int, complete[:start]))
        return () if self.trusted(prompt)[: len(added)] == added else added

    def read(self, ids: Iterable[int]) -> str:
        """The text of generated ids, control tokens left out."""
        control = {int(token["id"]) for token in self._control.values()}
        text: str = self._tokenizer.decode([i for i in ids if i not in control])
        return text

    def join(self, written: Iterable[int | str], *, first: bool = False) -> list[int]:
        """Token ids of a prompt, or of a part of one.

        Args:
            written: Text beside text is tokenised as one.
            first: Whether the prompt begins here.
        """
        ids: list[int] = []
        runs = [list(run) for _, run in groupby(written, key=lambda part: isinstance(part, str))]
        for place, run in enumerate(runs):
            if isinstance(run[0], int):
                ids += map(int, run)
                continue
            text = "".join(map(str, run))
            if ids and ids[-1] in self._swallow_right:
                text = text.lstrip()
            if place + 1 < len(runs) and runs[place + 1][0] in self._swallow_left:
                text = text.rstrip()
            ids += self.ids(text, first=first and place == 0)
        return ids

    def cut(
        self, settled: PromptParts, begun: PromptParts, endings: Sequence[PromptParts]
    ) -> tuple[list[int], list[list[int]]]:
        """Token ids of prompts that share their beginning, cut where none of their tokens is.

        Put together again they are those of the whole prompts, each tokenised at once. The cut is
        at the end of the beginning, or before it where a token of some prompt crosses that end.

        Args:
            settled: What every prompt begins with.
            begun: What the shared beginning adds to it.
            endings: What the prompts add to it, the shared beginning included.

        Returns:
            Ids of what is shared, and of the rest of each prompt; no rest is empty.
        """
        n = max(
            (place for place, part in enumerate(settled, 1) if isinstance(part, int)), default=0
        )
        fixed, opened = settled[:n], settled[n:]

        def behind(written: PromptParts) -> list[int]:
            # The last token may act on the text behind it.
            return self.join((*fixed[-1:], *opened, *written), first=not fixed)[len(fixed[-1:]) :]

        start, ends = behind(begun), [behind(ending) for ending in endings]
        shared = min((min(_common(start, end), len(end) - 1) for end in ends), default=len(start))
        shared = max(shared, 0)
        return self.join(fixed, first=True) + start[:shared], [end[shared:] for end in ends]

    def label(self, text: str) -> int:
        """The one token that is this label at the beginning of an answer.

        Raises:
            ModelError: It takes more tokens, so its logit cannot be read at one position.
        """
        ids = self._answered(self.answer_lead + text)
        if len(ids) != 1:
            raise ModelError(
                f"{self._counted(text)}: choose a framing with other labels", self._name
            )
        return ids[0]

    def apart(self, labels: Sequence[str]) -> tuple["TextEncoder", tuple[int, ...]]:
        """Read labels that are one token each; prompts may have to end with a space for that.

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
            bare.answer_behind += self.answer_lead
            bare.answer_lead = ""
            return bare, tuple(self._answered(self.answer_lead))
        for label in labels:
            self.label(label)
        return self, ()

    def _single(self, texts: Iterable[str]) -> bool:
        return all(len(self._answered(text)) == 1 for text in texts)

    def _answered(self, text: str) -> list[int]:
        """Token ids of an answer's text, behind the tokens that prompts end with."""
        before, both = self.ids(self.answer_behind), self.ids(self.answer_behind + text)
        return both[len(before) :] if both[: len(before)] == before else self.ids(text)

    def _counted(self, label: str) -> str:
        """A label that is no single token, as this model answers and the other way."""
        needed = self.answer_lead + label
        other = label if self.answer_lead else f" {label}"
        return (
            f"the label {needed!r} takes {len(self._answered(needed))} tokens of {self._name}, not "
            "one (as its chat template begins an answer; "
            f"{other!r} takes {len(self._answered(other))})"
        )

    def _trusted(self, text: str) -> PromptParts:
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


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of ids that both begin with."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
