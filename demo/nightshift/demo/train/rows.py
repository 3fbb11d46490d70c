"""Training rows of the scorer: token ids of a prompt, and what each position should predict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntFlag, auto
from functools import lru_cache
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from nightshift.demo.prompts import IMAGE, LABELS, Prompt
from nightshift.demo.train.pool import SIDE
from nightshift.demo.train.tokenizers import token_id

IGNORED = -100
"""Target of a position that nothing is asked of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt with its images (places in the batch's list of images) and its targets.

    `answers` and `words` hold, for every position, the id that should come next: `answers` for
    the label alone, `words` for the caption. `fits` says at every token of a caption whether it
    is true of the image so far (1) or not (0), and at a visual token what the thing it shows has
    in common with the caption or the image before, as `Likeness`. In a packed row, `suffixes`
    counts the prompts that share a beginning: 0 there, then 1, 2, …
    """

    ids: list[int]
    answers: list[int]
    words: list[int]
    fits: list[int]
    suffixes: list[int]
    images: tuple[int, ...]


class Likeness(IntFlag):
    """Properties that a thing in an image shares with a wanted scene."""

    COLOUR = auto()
    SHAPE = auto()
    #: Both in one thing.
    COLOURED_SHAPE = auto()
    #: The size too.
    THING = auto()
    #: In the same place of a scene that lies along the same axis.
    PLACE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A caption to judge, and the true one in the same manner of speaking."""

    text: str
    truth: str

    @property
    def is_true(self) -> bool:
        """Tells whether it fits its image."""
        return self.text == self.truth


class RowMaker:
    """Turns prompts into rows exactly as the processor and its chat template would."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[str, list[int]] = {}
        self.image_token = token_id(tokenizer, "<|image_pad|>")
        self.padding = token_id(tokenizer, "<|endoftext|>")

    def row(
        self,
        prompt: Prompt,
        *,
        images: tuple[int, ...],
        answer: str,
        caption: Caption | None = None,
        likeness: list[int] | None = None,
    ) -> Row:
        """Build a row.

        Args:
            prompt: what is asked.
            images: places in the batch's list of images.
            answer: a label, or a whole caption.
            caption: a piece of the prompt that comes behind its image. A true one is learnt
                word by word; a false one is only judged.
            likeness: `fits` at the visual tokens of the last image `[25]`.
        """
        ids: list[int] = []
        words: list[int] = []
        fits: list[int] = []
        still_to_come = len(images)
        for text, span in _turn(prompt, caption.text if caption else None):
            piece = self._image() if text == IMAGE else self._ids(text)
            kept, parted = range(0), 0
            if caption and span:
                kept = self._inside(text, span)
                truth = self._ids(text[: span.start] + caption.truth + text[span.stop :])
                parted = _common(piece, truth)
            learnt = kept if caption and caption.is_true else range(0)
            words += [piece[i] if i in learnt else IGNORED for i in range(len(piece))]
            judged = [int(i < parted) if i in kept else IGNORED for i in range(len(piece))]
            if text == IMAGE:
                still_to_come -= 1
                if likeness and not still_to_come:
                    judged[1:-1] = likeness
            fits += judged
            ids += piece
        requested = len(ids)
        reply = self._ids(answer)
        if len(reply) > 1:
            reply = [*reply, *self._ids("<|im_end|>")]
            words += reply
        ids += reply[:-1]
        fits += [IGNORED] * (len(reply) - 1)
        # A position predicts what comes next, so targets stand one place to the left.
        words = [*words[1:], IGNORED][: len(ids)]
        answers = [IGNORED] * len(ids)
        if len(reply) == 1:
            answers[requested - 1] = reply[0]
        suffixes = [0] * len(ids)
        return Row(
            ids=ids,
            answers=answers,
            words=words,
            fits=fits,
            suffixes=suffixes,
            images=images,
        )

    def glance(self, prompt: Prompt, *, images: tuple[int, ...], likeness: list[int]) -> Row:
        """A row that ends with its last image: its things are judged, and nothing is asked."""
        row = self.row(prompt, images=images, answer=LABELS[0], likeness=likeness)
        end = _last_image(row, self.image_token) + SIDE**2
        silent = [IGNORED] * end
        return replace(
            row,
            ids=row.ids[:end],
            answers=silent,
            words=silent,
            fits=row.fits[:end],
            suffixes=row.suffixes[:end],
        )

    def _inside(self, text: str, span: range) -> range:
        """The tokens of a text that touch a span of its characters."""
        offsets = self._tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        touching = [i for i, (a, b) in enumerate(offsets) if a < span.stop and b > span.start]
        return range(touching[0], touching[-1] + 1)

    def _image(self) -> list[int]:
        start, end = self._ids("<|vision_start|>"), self._ids("<|vision_end|>")
        return [*start, *[self.image_token] * SIDE**2, *end]

    def _ids(self, text: str) -> list[int]:
        if text not in self._pieces:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(self._pieces) > 50_000:
                self._pieces.clear()
            self._pieces[text] = ids
        return self._pieces[text]


def packed(rows: list[Row], image_token: int) -> Row:
    """Rows as one, their common beginning said once: the same images, or all but the last."""
    shared = min(_first_asked(row) for row in rows)
    images = rows[0].images
    if any(row.images != images for row in rows):
        # Its visual tokens look alike by their ids.
        shared = min(shared, _last_image(rows[0], image_token))
        images = (*images[:-1], *(row.images[-1] for row in rows))

    def joined(name: str) -> list[int]:
        lists: list[list[int]] = [getattr(row, name) for row in rows]
        return [*lists[0][:shared], *(value for line in lists for value in line[shared:])]

    counts = [len(row.ids) - shared for row in rows]
    suffixes = [number for number, count in enumerate(counts, 1) for _ in range(count)]
    return Row(
        ids=joined("ids"),
        answers=joined("answers"),
        words=joined("words"),
        fits=joined("fits"),
        suffixes=[*[0] * shared, *suffixes],
        images=images,
    )


def positions(row: Row, image_token: int, length: int) -> NDArray[np.int64]:
    """M-RoPE positions `[3, length]` of a row: every suffix follows on the shared beginning."""
    shared = row.suffixes.count(0)
    parts = [_whole_positions(row.ids[:shared], image_token)]
    at = shared
    for number in range(1, max(row.suffixes) + 1):
        stop = at + row.suffixes.count(number)
        complete = _whole_positions(row.ids[:shared] + row.ids[at:stop], image_token)
        parts.append(complete[:, shared:])
        at = stop
    placed = np.concatenate(parts, axis=1)
    return np.pad(placed, ((0, 0), (0, length - placed.shape[1])), mode="edge")


def _first_asked(row: Row) -> int:
    targets = zip(row.answers, row.words, row.fits, strict=True)
    return next(place for place, target in enumerate(targets) if max(target) != IGNORED)


def _last_image(row: Row, image_token: int) -> int:
    """Where its visual tokens begin."""
    last = len(row.ids) - row.ids[::-1].index(image_token)
    return last - SIDE**2


def _common(first: list[int], second: list[int]) -> int:
    """Number of tokens that two texts begin with in common."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in alike)


def _turn(prompt: Prompt, read: str | None) -> list[tuple[str, range | None]]:
    """The user's turn as runs of text and images, with the characters to learn in each run."""
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


def _whole_positions(ids: list[int], image_token: int) -> NDArray[np.int64]:
    starts = tuple(i for i in range(1, len(ids)) if ids[i] == image_token != ids[i - 1])
    return _unpacked_positions(starts, len(ids))


@lru_cache(maxsize=4096)
def _unpacked_positions(starts: tuple[int, ...], length: int) -> NDArray[np.int64]:
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
