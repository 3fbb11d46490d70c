"""Training rows of the scorer: token ids of a prompt, and what each position should predict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from nightshift.demo import prompts
from nightshift.demo.prompts import IMAGE, Prompt
from nightshift.demo.scenes import Scene, describe, neighbours, random_scene, substitute
from nightshift.demo.train.tokenizers import token_id

IGNORED = -100
"""Target of a position that nothing is asked of."""

SIDE = 5
"""Visual tokens along one side of a picture."""

_EASY_SHARE = 0.08
_SUBSTITUTED_SHARE = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt with its pictures (places in the batch's list of pictures) and its targets.

    `answers` and `words` hold, for every position, the id that should come next: `answers` for
    the label alone, `words` for the caption.
    """

    ids: list[int]
    answers: list[int]
    words: list[int]
    pictures: tuple[int, ...]


class RowMaker:
    """Turns prompts into rows exactly as the processor and its chat template would."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[str, list[int]] = {}
        self.image_token = token_id(tokenizer, "<|image_pad|>")
        self.padding = token_id(tokenizer, "<|endoftext|>")

    def row(
        self, prompt: Prompt, *, pictures: tuple[int, ...], answer: str, read: str | None = None
    ) -> Row:
        """Build a row; the piece equal to `read` is learnt word by word as a caption."""
        ids: list[int] = []
        words: list[int] = []
        for text, learnt in _turn(prompt, read):
            piece = self._picture() if text == IMAGE else self._ids(text)
            kept = self._inside(text, learnt) if learnt else range(0)
            words += [piece[i] if i in kept else IGNORED for i in range(len(piece))]
            ids += piece
        asked = len(ids)
        reply = self._ids(answer)
        if len(reply) > 1:
            reply = [*reply, *self._ids("<|im_end|>")]
            words += reply
        ids += reply[:-1]
        # A position predicts what comes next, so targets stand one place to the left.
        words = [*words[1:], IGNORED][: len(ids)]
        answers = [IGNORED] * len(ids)
        if len(reply) == 1:
            answers[asked - 1] = reply[0]
        return Row(ids=ids, answers=answers, words=words, pictures=pictures)

    def _inside(self, text: str, span: range) -> range:
        """The tokens of a text that touch a span of its characters."""
        offsets = self._tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        touching = [i for i, (a, b) in enumerate(offsets) if a < span.stop and b > span.start]
        return range(touching[0], touching[-1] + 1)

    def _picture(self) -> list[int]:
        start, end = self._ids("<|vision_start|>"), self._ids("<|vision_end|>")
        return [*start, *[self.image_token] * SIDE**2, *end]

    def _ids(self, text: str) -> list[int]:
        if text not in self._pieces:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(self._pieces) > 50_000:
                self._pieces.clear()
            self._pieces[text] = ids
        return self._pieces[text]


def false_caption(scene: Scene, rng: Random) -> str:
    """A caption that does not fit a scene, most often by one detail."""
    draw = rng.random()
    if draw < _EASY_SHARE:
        other = scene
        while other == scene:
            other = random_scene(rng, scene.split)
    elif draw < _EASY_SHARE + _SUBSTITUTED_SHARE:
        other = substitute(scene, rng)
    else:
        other = rng.choice(neighbours(scene))
    return describe(other, rng)


def matching_rows(
    maker: RowMaker, scene: Scene, picture: int, captions: int, rng: Random
) -> list[Row]:
    """RetLLM rows of one picture, half of them true; the true captions are learnt as words."""
    rows = []
    for index in range(captions):
        fits = index % 2 == 0
        caption = describe(scene, rng) if fits else false_caption(scene, rng)
        rows.append(
            maker.row(
                prompts.retllm(caption),
                pictures=(picture,),
                answer=str(fits),
                read=caption if fits else None,
            )
        )
    return rows


def reading_row(maker: RowMaker, scene: Scene, picture: int, rng: Random) -> Row:
    """A true RetLLM row cut behind its caption: all words, no question."""
    caption = describe(scene, rng)
    row = maker.row(prompts.retllm(caption), pictures=(picture,), answer="True", read=caption)
    end = max(i for i, word in enumerate(row.words) if word != IGNORED) + 1
    return Row(
        ids=row.ids[:end], answers=[IGNORED] * end, words=row.words[:end], pictures=row.pictures
    )


def listing_row(maker: RowMaker, scene: Scene, picture: int) -> Row:
    """A row that answers with the two things of a scene of two, in order.

    It teaches which side is which: the first thing's colour depends on it, not one word only.
    """
    relation, first = scene.beside[0]
    return maker.row(
        prompts.list_things(horizontally=relation.is_horizontal),
        pictures=(picture,),
        answer=f"{first}, {scene.centre}",
    )


def choice_row(maker: RowMaker, scene: Scene, picture: int, rng: Random) -> Row:
    """A FreeRet row, the text as query or as candidate."""
    fits = rng.random() < 0.5
    caption = describe(scene, rng) if fits else false_caption(scene, rng)
    if rng.random() < 0.6:
        prompt = prompts.freeret(caption, IMAGE)
        read = None
    else:
        prompt = prompts.freeret(IMAGE, caption)
        read = caption if fits else None
    return maker.row(prompt, pictures=(picture,), answer="A" if fits else "B", read=read)


def caption_row(maker: RowMaker, scene: Scene, picture: int, rng: Random) -> Row:
    """A row that answers with a whole caption."""
    return maker.row(prompts.describe_image(), pictures=(picture,), answer=describe(scene, rng))


def pair_row(maker: RowMaker, pictures: tuple[int, int], *, same: bool, rng: Random) -> Row:
    """A row about two pictures: IndexMLLM's digits, FreeRet's letters or RetLLM's words."""
    draw = rng.random()
    if draw < 0.6:
        return maker.row(prompts.indexmllm(), pictures=pictures, answer="1" if same else "0")
    if draw < 0.8:
        return maker.row(
            prompts.freeret(IMAGE, IMAGE), pictures=pictures, answer="A" if same else "B"
        )
    return maker.row(prompts.retllm_pair(), pictures=pictures, answer=str(same))


def _turn(prompt: Prompt, read: str | None) -> list[tuple[str, range | None]]:
    """The user's turn as runs of text and pictures, with the characters to learn in each run."""
    runs: list[tuple[str, range | None]] = [("<|im_start|>user\n", None)]
    for piece in prompt:
        text, learnt = runs[-1]
        if IMAGE in (piece, text):
            runs.append((piece, range(len(piece)) if piece == read else None))
        else:
            if piece == read:
                learnt = range(len(text), len(text) + len(piece))
            runs[-1] = (text + piece, learnt)
    text, learnt = runs[-1]
    tail = "<|im_end|>\n<|im_start|>assistant\n"
    return [*runs, (tail, None)] if text == IMAGE else [*runs[:-1], (text + tail, learnt)]


@lru_cache(maxsize=4096)
def positions(starts: tuple[int, ...], length: int) -> NDArray[np.int64]:
    """M-RoPE positions `[3, length]` of a row whose pictures start at `starts`."""
    out = np.empty((3, length), dtype=np.int64)
    here = at = 0
    grid = np.indices((SIDE, SIDE)).reshape(2, -1)
    for start in starts:
        out[:, at:start] = here + np.arange(start - at)
        here += start - at
        out[0, start : start + SIDE**2] = here
        out[1:, start : start + SIDE**2] = here + grid
        here, at = here + SIDE, start + SIDE**2
    out[:, at:] = here + np.arange(length - at)
    return out
