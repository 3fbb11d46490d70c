"""Captions that stay captions: no control token comes out of a text."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from nightshift.schema.errors import InputError

__all__ = ["PlainText"]


class PlainText:
    """Breaks up text that a tokenizer would read as a control token; all other text is kept.

    Most tokenizers have an option that splits special tokens. Those of the Unigram kind (T5, XLM-R,
    and so SigLIP) hold them as ordinary pieces too, and find them all the same.

    Args:
        tokenizer: Of transformers; set up here to split special tokens.
        clean: What is done to a text before it is tokenised.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, clean: Callable[[str], str] = str
    ) -> None:
        tokenizer.split_special_tokens = True
        self._tokenizer = tokenizer
        self._clean = clean
        names = {
            str(token)
            for kind, token in tokenizer.special_tokens_map.items()
            if kind != "unk_token"  # what every unknown sign becomes
            for token in (token if isinstance(token, list) else [token])
        }
        ids = tokenizer.convert_tokens_to_ids(sorted(names))
        assert isinstance(ids, list)
        self._control = frozenset(ids)
        words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        self._words = re.compile(words, re.IGNORECASE)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The same texts, or where one would steer the model, a blank inside what would do it.

        Raises:
            InputError: `control_token`: one comes out of a text whatever is done to it;
                `subject_id` is its place.
        """
        return [
            self._broken_up(text, place) if self._steers(text) else text
            for place, text in enumerate(texts)
        ]

    def _broken_up(self, text: str, place: int) -> str:
        # Tokenizers fold look-alikes together before they look: ＜/s＞ is </s> to them.
        folded = unicodedata.normalize("NFKC", text)
        broken = self._words.sub(lambda match: f"{match[0][0]} {match[0][1:]}", folded)
        if self._steers(broken):
            raise InputError(
                "the text holds what the model reads as a control token; remove it",
                "control_token",
                str(place),
            )
        return broken

    def _steers(self, text: str) -> bool:
        ids = self._tokenizer(self._clean(text), add_special_tokens=False, verbose=False)
        return not self._control.isdisjoint(ids["input_ids"])
