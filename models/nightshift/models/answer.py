"""Answers to queries from their best results, by the model that ranked them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from nightshift.models.engine.family import Family, PixelLimits, PromptImage
from nightshift.models.engine.generation.generate import generate
from nightshift.models.engine.plain import batches, single_prompt
from nightshift.models.engine.prompt_writer import prepare
from nightshift.models.engine.prompts import PreparedPrompts, Prompt
from nightshift.models.engine.protocol import Group, Piece
from nightshift.models.engine.runtime.token_budget import TokenBudget
from nightshift.models.engine.visual import encode_images, prepare_image
from nightshift.models.inputs.content import ItemContent, images_for_prompt
from nightshift.schema.errors import InputError
from nightshift.scoring.answering import MAX_ANSWER_TOKENS, answer_prompt, cited_results

__all__ = ["Answerer", "GeneratedAnswer", "Question"]


# Keys and values of so many tokens are kept, those of the answers beside them.
_TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A query and its results, the best first."""

    query: ItemContent
    results: tuple[ItemContent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedAnswer:
    """An answer of the model."""

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
        limits: Bounds on the pixels of an image.
        max_tokens: Of an answer.
    """

    def __init__(
        self, family: Family, limits: PixelLimits, *, max_tokens: int = MAX_ANSWER_TOKENS
    ) -> None:
        self._family = family
        self._limits = limits
        self._max_tokens = max_tokens
        self._budget = TokenBudget(_TOKENS_PER_BATCH, "question")

    def prepare_image(self, image: Image.Image) -> PromptImage:
        """See `Engine.prepare_image`."""
        return prepare_image(self._family, image, self._limits)

    def answer(self, questions: Sequence[Question]) -> list[GeneratedAnswer | InputError]:
        """Generate answers, as many at once as memory holds.

        Returns:
            In order; a bad question yields its error, and its neighbours are answered: a prompt
            longer than the model reads, an image that cannot be resized, logits that are not
            finite.
        """
        try:
            return [*self._answer(questions)]
        except InputError as error:
            if len(questions) == 1:
                return [error]
            return [answer for question in questions for answer in self.answer([question])]

    @torch.inference_mode()
    def _answer(self, questions: Sequence[Question]) -> list[GeneratedAnswer]:
        prepared = self._prepare(questions)
        visual_tokens = encode_images(self._family, prepared.images)
        ids_of: dict[str, list[int]] = {}

        def write(batch: list[Prompt]) -> None:
            written = generate(
                self._family,
                batch,
                visual_tokens,
                max_tokens=self._max_tokens,
                stop_ids=self._family.stop_ids,
            )
            ids_of.update(zip([prompt.name for prompt in batch], written, strict=True))

        self._budget.run(prepared.prompts, batches, write, single_prompt)
        return [
            self._read(ids_of[prompt.name], len(question.results))
            for question, prompt in zip(questions, prepared.prompts, strict=True)
        ]

    def _prepare(self, questions: Sequence[Question]) -> PreparedPrompts:
        groups = []
        for question in questions:
            results = [_pieces(result) for result in question.results]
            pieces = tuple(answer_prompt(_pieces(question.query), results))
            groups.append(Group(prefix=(), suffixes=(pieces,)))
        prepared = prepare(self._family, self._limits, groups)
        longest = self._family.max_length - self._max_tokens
        for question, prompt in zip(questions, prepared.prompts, strict=True):
            if len(prompt.ids) > longest:
                raise InputError(
                    f"the query and its {len(question.results)} results have {len(prompt.ids)} "
                    f"tokens, of which the model reads {longest} and an answer: lower max_pixels, "
                    "or shorten the texts",
                    "prompt_too_long",
                )
        return prepared

    def _read(self, ids: list[int], n_results: int) -> GeneratedAnswer:
        text = self._family.text.read(ids).strip()
        return GeneratedAnswer(
            text=text,
            cited=cited_results(text, n_results),
            n_tokens=len(ids),
            ended=len(ids) < self._max_tokens,
        )


def _pieces(content: ItemContent) -> tuple[Piece, ...]:
    """The images of a content, then its texts."""
    return (*images_for_prompt(content), "\n".join(content.texts))
