"""Groups of prompts, tokenised: what every engine prepares and reads."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nightshift.models.engine.family import (
    Embedded,
    Family,
    PixelLimits,
    PromptImage,
    VisualTokens,
)
from nightshift.models.engine.protocol import Group, Piece, Reading
from nightshift.models.engine.text import PromptParts
from nightshift.models.engine.visual import prepare_image
from nightshift.models.inputs.content import ImagePiece
from nightshift.schema.errors import InputError, ModelError

__all__ = ["Part", "Prepared", "Prompt", "PromptGroup", "embed", "prepare"]

# So many distinct prompts with one reading are no coincidence.
_SUSPICIOUS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The beginning of some prompts, or the end of one."""

    #: `group`, or `group/suffix`.
    place: str
    #: int64 (length,).
    ids: Tensor
    #: int64 (axes, length), as in the whole prompt.
    positions: Tensor
    #: Places in the list of distinct pictures, in reading order.
    images: tuple[int, ...]
    #: Those of them that the enhancement looks at again.
    memory: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One whole prompt."""

    #: `group/suffix`.
    place: str
    #: int64 (length,).
    ids: Tensor
    #: int64 (axes, length).
    positions: Tensor
    #: Places in the list of distinct pictures, in reading order.
    images: tuple[int, ...]
    #: Those of them that the enhancement looks at again.
    memory: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptGroup:
    """Prompts that share their beginning."""

    prefix: Part
    suffixes: tuple[Part, ...]

    def prompts(self) -> Iterator[Prompt]:
        """Each of them whole."""
        for suffix in self.suffixes:
            yield Prompt(
                place=suffix.place,
                ids=torch.cat([self.prefix.ids, suffix.ids]),
                positions=torch.cat([self.prefix.positions, suffix.positions], dim=1),
                images=self.prefix.images + suffix.images,
                memory=self.prefix.memory + suffix.memory,
            )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Groups in host memory."""

    #: Distinct, whatever the number of prompts that show them.
    images: list[PromptImage]
    groups: list[PromptGroup]

    @property
    def n_suffixes(self) -> int:
        """How many prompts it holds."""
        return sum(len(group.suffixes) for group in self.groups)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All of them whole, group after group."""
        return [prompt for group in self.groups for prompt in group.prompts()]

    def arranged(self, found: Mapping[str, Reading]) -> list[tuple[Reading, ...]]:
        """Readings by place, in the order of the call.

        Raises:
            ModelError: Eight or more distinct prompts all read the very same.
        """
        self.refuse_equal([reading.label_logits.tobytes() for reading in found.values()])
        return [tuple(found[suffix.place] for suffix in group.suffixes) for group in self.groups]

    def refuse_equal(self, logits: Collection[object]) -> None:
        """Look at what was read of all prompts.

        Raises:
            ModelError: Eight or more distinct prompts all read the very same.
        """
        if len(set(logits)) == 1 and self._n_distinct() >= _SUSPICIOUS:
            raise ModelError(
                f"{self._n_distinct()} distinct pairs all have the same logits: the model does not "
                "tell them apart; check its weights, or try float32"
            )

    def _n_distinct(self) -> int:
        return len({(tuple(one.ids.tolist()), one.images) for one in self.prompts})


def prepare(family: Family, limits: PixelLimits, groups: Sequence[Group]) -> Prepared:
    """Tokenise and preprocess, on the CPU; any thread may call it.

    Raises:
        InputError: A prompt is longer than the model reads, or a picture cannot be resized.
    """
    album = ImageSet(family, limits)
    for group in groups:
        for piece in (*group.prefix, *(p for suffix in group.suffixes for p in suffix)):
            if not isinstance(piece, str):
                album.add(piece)
    writer = _Writer(family, album)
    return Prepared(
        images=album.images, groups=[writer.group(i, group) for i, group in enumerate(groups)]
    )


def embed(family: Family, parts: Sequence[Part | Prompt], seen: Sequence[VisualTokens]) -> Embedded:
    """What the decoder reads of parts of prompts, or of whole ones.

    Args:
        family: The loaded model.
        parts: Padded to the longest.
        seen: Visual tokens of the distinct pictures.
    """
    ids = pad_sequence([part.ids for part in parts], batch_first=True)
    positions = pad_sequence([part.positions.T for part in parts], batch_first=True)
    states = family.embed(ids)
    visual = family.is_visual(ids).to(states.device)
    shown = [[seen[i] for i in part.images] for part in parts]
    if any(shown):
        tokens = torch.cat([picture.tokens for row in shown for picture in row])
        states[visual] = tokens.to(states.dtype)
    n_deepstack = max((len(picture.deepstack) for row in shown for picture in row), default=0)
    return Embedded(
        states=states,
        positions=positions.permute(2, 0, 1),
        visual=visual,
        deepstack=tuple(
            tuple(
                torch.cat([states[0, :0], *(picture.deepstack[layer] for picture in row)])
                for row in shown
            )
            for layer in range(n_deepstack)
        ),
    )


class _Writer:
    """Writes pieces as token ids, inside the family's chat template."""

    def __init__(self, family: Family, album: "ImageSet") -> None:
        self._family = family
        self._album = album

    def group(self, number: int, group: Group) -> PromptGroup:
        shown, said = _at_last_picture(group.prefix)
        settled = self._content((), shown) if shown else ()
        ahead = next((piece for pieces in group.suffixes for piece in pieces[:1]), "")
        ids, rests = self._family.text.cut(
            settled,
            self._content(shown, said, ahead=ahead),
            [self._content(shown, (*said, *one), ended=True) for one in group.suffixes],
        )
        added = list(self._family.turn.added)
        prefix, start = self._part(
            str(number), added + ids, shown, 0, remembered=group.remembered[0]
        )
        suffixes = []
        for i, (pieces, rest) in enumerate(zip(group.suffixes, rests, strict=True)):
            place = f"{number}/{i}"
            part, _ = self._part(place, rest, pieces, start, remembered=group.remembered[1])
            suffixes.append(part)
            self._refuse_long(len(prefix.ids) + len(part.ids), place)
        return PromptGroup(prefix=prefix, suffixes=tuple(suffixes))

    def _content(
        self,
        behind: Sequence[Piece],
        pieces: Sequence[Piece],
        *,
        ahead: Piece | None = None,
        ended: bool = False,
    ) -> PromptParts:
        """What pieces add to a prompt, as the template writes them.

        Args:
            behind: What was written before; ends with a picture, or is empty: then the template's
                head comes first.
            pieces: Texts side by side are one text.
            ahead: What follows, where more does.
            ended: Whether the prompt ends with them.
        """
        turn = self._family.turn
        runs = list(_runs(pieces))
        written: list[int | str] = []
        picture = bool(behind)
        if not behind:
            first = next((one for one in (*runs, ahead) if one is not None), "")
            written += turn.text_head if isinstance(first, str) else turn.picture_head
        for place, run in enumerate(runs):
            if isinstance(run, str):
                written += turn.after if picture else ()
                is_open = place == len(runs) - 1 and isinstance(ahead, str) and not ended
                written.append(self._stripped(run, is_open=is_open))
            else:
                written += turn.between if picture else turn.before
                written += self._album.images[self._album.place(run)].written
            picture = not isinstance(run, str)
        if picture and (ended or ahead is not None):
            written += turn.after if ended or isinstance(ahead, str) else turn.between
        return (*written, *turn.tail) if ended else tuple(written)

    def _stripped(self, text: str, *, is_open: bool) -> str:
        """A text as the template leaves it.

        Args:
            text: All of it, or its beginning.
            is_open: Whether more of it follows.
        """
        turn = self._family.turn
        text = text.lstrip() if turn.strips_left else text
        return text.rstrip() if turn.strips_right and not is_open else text

    def _part(
        self, place: str, ids: list[int], pieces: Sequence[Piece], start: int, *, remembered: bool
    ) -> tuple[Part, int]:
        """A part that begins at a position, and the position behind it."""
        written = torch.tensor(ids, dtype=torch.int64)
        shown = tuple(self._album.place(one) for one in pieces if not isinstance(one, str))
        # A part's positions only depend on what precedes it by where that ends.
        positions = self._family.positions(written, [self._album.images[i] for i in shown])
        positions = positions + start
        left = self._left(written, shown)
        if len(positions) == 1:
            # In reading order: what was dropped leaves no gap.
            positions = positions[:, : int(left.sum())]
        end = int(positions.max()) + 1 if positions.numel() else start
        if len(positions) > 1:
            # Where in the whole picture a token stood.
            positions = positions[:, left]
        part = Part(
            place=place,
            ids=written[left],
            positions=positions,
            images=shown,
            memory=shown if remembered else (),
        )
        return part, end

    def _left(self, ids: Tensor, shown: Sequence[int]) -> Tensor:
        """Bool (length,): all but the visual tokens that a reduction dropped."""
        left = torch.ones(len(ids), dtype=torch.bool)
        if all(self._album.images[i].kept is None for i in shown):
            return left
        places = self._family.is_visual(ids).nonzero()[:, 0]
        of_pictures = places.split([self._album.images[i].n_tokens for i in shown])
        for i, of_picture in zip(shown, of_pictures, strict=True):
            if (kept := self._album.images[i].kept) is not None:
                left[of_picture] = False
                left[of_picture[kept]] = True
        return left

    def _refuse_long(self, length: int, place: str) -> None:
        if length > self._family.max_length:
            raise InputError(
                f"prompt {place} has {length} tokens, of which the model reads "
                f"{self._family.max_length}: shorten the text, or lower max_pixels",
                "prompt_too_long",
                place,
            )


def _at_last_picture(pieces: Sequence[Piece]) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Pieces up to the last picture, and the texts behind it."""
    places = [place for place, one in enumerate(pieces, 1) if not isinstance(one, str)]
    n = places[-1] if places else 0
    return tuple(pieces[:n]), tuple(pieces[n:])


def _runs(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Pictures one by one, and texts side by side as one; none of them is empty."""
    for is_text, run in groupby(pieces, key=lambda one: isinstance(one, str)):
        if not is_text:
            yield from run
        elif text := "".join(map(str, run)):
            yield text


class ImageSet:
    """The distinct pictures of a call, by content, in the order in which they were added."""

    def __init__(self, family: Family, limits: PixelLimits) -> None:
        self._family = family
        self._limits = limits
        self.images: list[PromptImage] = []
        self._places: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    def add(self, piece: ImagePiece) -> None:
        # Prompts of a group mostly show the very same object.
        if id(piece) in self._keys:
            return
        picture = prepare_image(self._family, piece, self._limits)
        assert picture.key is not None
        self._keys[id(piece)] = picture.key
        if picture.key not in self._places:
            self._places[picture.key] = len(self.images)
            self.images.append(picture)

    def place(self, piece: ImagePiece) -> int:
        return self._places[self._keys[id(piece)]]
