"""Answers to queries from their best results, by the model that ranked them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nightshift.models.content import ItemContent
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.generate import generate
from nightshift.models.engine.prompts import Prepared, prepare
from nightshift.models.engine.visual import see
from nightshift.models.rendering import shown
from nightshift.models.scorer import Group, Piece
from nightshift.schema.errors import InputError
from nightshift.scoring.answering import MAX_TOKENS, cited, question

__all__ = ["Answer", "Answerer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said."""

    text: str
    #: Places from 0 of the results that it cites.
    cited: tuple[int, ...]
    n_tokens: int
    #: False where it was cut at the longest length.
    ended: bool


class Answerer:
    """Generates answers; greedy, so that the same question gets the same answer.

    Args:
        family: The loaded model.
        limits: Bounds on the pixels of a picture.
        max_tokens: Of an answer.
    """

    def __init__(
        self, family: Family, limits: PixelLimits, *, max_tokens: int = MAX_TOKENS
    ) -> None:
        self._family = family
        self._limits = limits
        self._max_tokens = max_tokens

    def prepare(self, query: ItemContent, results: Sequence[ItemContent]) -> Prepared:
        """Tokenise and preprocess one question, on the CPU; any thread may call it.

        Raises:
            InputError: The prompt is longer than the model reads, or a picture cannot be resized.
        """
        pieces = tuple(question(_pieces(query), [_pieces(one) for one in results]))
        prepared = prepare(self._family, self._limits, [Group(prefix=(), suffixes=(pieces,))])
        (prompt,) = prepared.prompts
        longest = self._family.max_length - self._max_tokens
        if len(prompt.ids) > longest:
            raise InputError(
                f"the query and its {len(results)} results have {len(prompt.ids)} tokens, of which "
                f"the model reads {longest} and an answer: lower max_pixels, or shorten the texts",
                "prompt_too_long",
            )
        return prepared

    @torch.inference_mode()
    def answer(self, prepared: Prepared, n_results: int) -> Answer:
        """Generate the answer to a prepared question about so many results."""
        (prompt,) = prepared.prompts
        ids = generate(
            self._family,
            prompt,
            see(self._family, prepared.pictures),
            max_tokens=self._max_tokens,
            stop_ids=self._family.stop_ids,
        )
        text = self._family.text.read(ids).strip()
        return Answer(
            text=text,
            cited=cited(text, n_results),
            n_tokens=len(ids),
            ended=len(ids) < self._max_tokens,
        )


def _pieces(content: ItemContent) -> tuple[Piece, ...]:
    """Pictures, then texts."""
    return (*shown(content), "\n".join(content.texts))
