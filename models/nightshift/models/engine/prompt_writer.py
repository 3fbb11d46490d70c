"""Writes prompts as token ids inside a family's chat template."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.image_set import ImageSet
from nightshift.models.engine.prompts import Part, PreparedPrompts, PromptGroup
from nightshift.models.engine.protocol import Group, Piece
from nightshift.models.engine.text import PromptParts
from nightshift.schema.errors import InputError

__all__ = ["prepare"]


def prepare(family: Family, limits: PixelLimits, groups: Sequence[Group]) -> PreparedPrompts:
    """Tokenise prompts and preprocess their images, on the CPU; any thread may call it.

    Args:
        family: The loaded model.
        limits: Bounds on the pixels of an image.
        groups: Prompts that share beginnings.

    Raises:
        InputError: A prompt is longer than the model reads, or an image cannot be resized.
    """
    image_set = ImageSet(family, limits)
    for group in groups:
        for piece in (*group.prefix, *(piece for suffix in group.suffixes for piece in suffix)):
            if not isinstance(piece, str):
                image_set.add(piece)
    writer = _PromptWriter(family, image_set)
    return PreparedPrompts(
        images=image_set.images, groups=[writer.group(i, group) for i, group in enumerate(groups)]
    )


class _PromptWriter:
    """Writes pieces as token ids, inside the family's chat template."""

    def __init__(self, family: Family, image_set: ImageSet) -> None:
        self._family = family
        self._image_set = image_set

    def group(self, number: int, group: Group) -> PromptGroup:
        to_image, texts = _split_after_last_image(group.prefix)
        settled = self._content((), to_image) if to_image else ()
        ahead = next((piece for pieces in group.suffixes for piece in pieces[:1]), "")
        ids, rests = self._family.text.cut(
            settled,
            self._content(to_image, texts, ahead=ahead),
            [self._content(to_image, (*texts, *suffix), ended=True) for suffix in group.suffixes],
        )
        added = list(self._family.turn.added)
        prefix, start = self._part(
            str(number), added + ids, to_image, 0, remembered=group.remembered[0]
        )
        suffixes = []
        for i, (pieces, rest) in enumerate(zip(group.suffixes, rests, strict=True)):
            name = f"{number}/{i}"
            part, _ = self._part(name, rest, pieces, start, remembered=group.remembered[1])
            suffixes.append(part)
            self._refuse_long(len(prefix.ids) + len(part.ids), name)
        return PromptGroup(prefix=prefix, suffixes=tuple(suffixes))

    def _content(
        self,
        behind: Sequence[Piece],
        pieces: Sequence[Piece],
        *,
        ahead: Piece | None = None,
        ended: bool = False,
    ) -> PromptParts:
        """The parts that pieces add to a prompt, as the chat template writes them.

        Args:
            behind: The pieces before; they end with an image, or there are none: then the
                template's head comes first.
            pieces: Texts side by side are one text.
            ahead: The first piece that follows, if one does.
            ended: Whether the prompt ends with these pieces.
        """
        turn = self._family.turn
        runs = list(_runs(pieces))
        written: list[int | str] = []
        after_image = bool(behind)
        if not behind:
            first = next((piece for piece in (*runs, ahead) if piece is not None), "")
            written += turn.text_head if isinstance(first, str) else turn.image_head
        for place, run in enumerate(runs):
            if isinstance(run, str):
                written += turn.after if after_image else ()
                is_open = place == len(runs) - 1 and isinstance(ahead, str) and not ended
                written.append(self._stripped(run, is_open=is_open))
            else:
                written += turn.between if after_image else turn.before
                written += self._image_set.images[self._image_set.index(run)].prompt_parts
            after_image = not isinstance(run, str)
        if after_image and (ended or ahead is not None):
            written += turn.after if ended or isinstance(ahead, str) else turn.between
        return (*written, *turn.tail) if ended else tuple(written)

    def _stripped(self, text: str, *, is_open: bool) -> str:
        """Strip a text as the template does.

        Args:
            text: The text, or its beginning.
            is_open: Whether more of it follows.
        """
        turn = self._family.turn
        text = text.lstrip() if turn.strips_left else text
        return text.rstrip() if turn.strips_right and not is_open else text

    def _part(
        self, name: str, ids: list[int], pieces: Sequence[Piece], start: int, *, remembered: bool
    ) -> tuple[Part, int]:
        """Build a part that begins at a position; also returns the position after it."""
        all_ids = torch.tensor(ids, dtype=torch.int64)
        shown = tuple(
            self._image_set.index(piece) for piece in pieces if not isinstance(piece, str)
        )
        # A part's positions only depend on what precedes it by where that ends.
        positions = self._family.positions(all_ids, [self._image_set.images[i] for i in shown])
        positions = positions + start
        kept = self._kept(all_ids, shown)
        if len(positions) == 1:
            # In reading order: dropped tokens leave no gap.
            positions = positions[:, : int(kept.sum())]
        end = int(positions.max()) + 1 if positions.numel() else start
        if len(positions) > 1:
            # Positions in the full image.
            positions = positions[:, kept]
        part = Part(
            name=name,
            ids=all_ids[kept],
            positions=positions,
            images=shown,
            memory=shown if remembered else (),
        )
        return part, end

    def _kept(self, ids: Tensor, shown: Sequence[int]) -> Tensor:
        """Bool (length,): all but the visual tokens that a reduction dropped."""
        kept = torch.ones(len(ids), dtype=torch.bool)
        if all(self._image_set.images[i].kept is None for i in shown):
            return kept
        visual = self._family.is_visual(ids).nonzero()[:, 0]
        of_images = visual.split([self._image_set.images[i].n_tokens for i in shown])
        for i, of_image in zip(shown, of_images, strict=True):
            if (kept_in_image := self._image_set.images[i].kept) is not None:
                kept[of_image] = False
                kept[of_image[kept_in_image]] = True
        return kept

    def _refuse_long(self, length: int, name: str) -> None:
        if length > self._family.max_length:
            raise InputError(
                f"prompt {name} has {length} tokens, of which the model reads "
                f"{self._family.max_length}: shorten the text, or lower max_pixels",
                "prompt_too_long",
                name,
            )


def _split_after_last_image(pieces: Sequence[Piece]) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Pieces up to the last image, and the texts after it."""
    ends = [end for end, piece in enumerate(pieces, 1) if not isinstance(piece, str)]
    n = ends[-1] if ends else 0
    return tuple(pieces[:n]), tuple(pieces[n:])


def _runs(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield images one by one, and adjacent texts joined; leaves out empty texts."""
    for is_text, run in groupby(pieces, key=lambda piece: isinstance(piece, str)):
        if not is_text:
            yield from run
        elif text := "".join(map(str, run)):
            yield text
