"""Groups of prompts, tokenised: what every engine prepares and reads."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nightshift.models.engine.family import (
    Embedded,
    Family,
    Picture,
    PixelLimits,
    VisualTokens,
)
from nightshift.models.engine.text import Written
from nightshift.models.engine.visual import PicturePiece, prepare_picture
from nightshift.models.scorer import Group, Piece, Reading
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
    pictures: tuple[int, ...]


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
    pictures: tuple[int, ...]


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
                pictures=self.prefix.pictures + suffix.pictures,
            )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Groups in host memory."""

    #: Distinct, whatever the number of prompts that show them.
    pictures: list[Picture]
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
        return len({(tuple(one.ids.tolist()), one.pictures) for one in self.prompts})


def prepare(family: Family, limits: PixelLimits, groups: Sequence[Group]) -> Prepared:
    """Tokenise and preprocess, on the CPU; any thread may call it.

    Raises:
        InputError: A prompt is longer than the model reads, or a picture cannot be resized.
    """
    album = _Album(family, limits)
    for group in groups:
        for piece in (*group.prefix, *(p for suffix in group.suffixes for p in suffix)):
            if not isinstance(piece, str):
                album.add(piece)
    writer = _Writer(family, album)
    return Prepared(
        pictures=album.pictures, groups=[writer.group(i, group) for i, group in enumerate(groups)]
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
    shown = [[seen[i] for i in part.pictures] for part in parts]
    if any(shown):
        tokens = torch.cat([picture.tokens for row in shown for picture in row])
        states[visual] = tokens.to(states.dtype)
    n_deep = max((len(picture.deep) for row in shown for picture in row), default=0)
    return Embedded(
        states=states,
        positions=positions.permute(2, 0, 1),
        visual=visual,
        deep=tuple(
            tuple(
                torch.cat([states[0, :0], *(picture.deep[layer] for picture in row)])
                for row in shown
            )
            for layer in range(n_deep)
        ),
    )


class _Writer:
    """Writes pieces as token ids, inside the family's chat template."""

    def __init__(self, family: Family, album: "_Album") -> None:
        self._family = family
        self._album = album

    def group(self, number: int, group: Group) -> PromptGroup:
        turn = self._family.turn
        # An empty beginning leaves the head to what the prompts begin with.
        first = next((p for pieces in (group.prefix, *group.suffixes) for p in pieces), "")
        head = turn.text_head if isinstance(first, str) else turn.picture_head
        prefix, start = self._part(str(number), group.prefix, 0, head=head)
        suffixes = []
        for i, pieces in enumerate(group.suffixes):
            place = f"{number}/{i}"
            suffixes.append(self._part(place, pieces, start, tail=turn.tail)[0])
            self._refuse_long(len(prefix.ids) + len(suffixes[-1].ids), place)
        return PromptGroup(prefix=prefix, suffixes=tuple(suffixes))

    def _part(
        self,
        place: str,
        pieces: Sequence[Piece],
        start: int,
        *,
        head: Written = (),
        tail: Written = (),
    ) -> tuple[Part, int]:
        """A part that begins at a position, and the position behind it."""
        written = (*head, *(one for piece in pieces for one in self._written(piece)), *tail)
        ids = torch.tensor(self._family.text.join(written), dtype=torch.int64)
        shown = tuple(self._album.place(one) for one in pieces if not isinstance(one, str))
        # A part's positions only depend on what precedes it by where that ends.
        positions = self._family.positions(ids, [self._album.pictures[i] for i in shown]) + start
        left = self._left(ids, shown)
        if len(positions) == 1:
            # In reading order: what was dropped leaves no gap.
            positions = positions[:, : int(left.sum())]
        end = int(positions.max()) + 1 if positions.numel() else start
        if len(positions) > 1:
            # Where in the whole picture a token stood.
            positions = positions[:, left]
        return Part(place=place, ids=ids[left], positions=positions, pictures=shown), end

    def _left(self, ids: Tensor, shown: Sequence[int]) -> Tensor:
        """Bool (length,): all but the visual tokens that a reduction dropped."""
        left = torch.ones(len(ids), dtype=torch.bool)
        if all(self._album.pictures[i].kept is None for i in shown):
            return left
        places = self._family.is_visual(ids).nonzero()[:, 0]
        of_pictures = places.split([self._album.pictures[i].n_tokens for i in shown])
        for i, of_picture in zip(shown, of_pictures, strict=True):
            if (kept := self._album.pictures[i].kept) is not None:
                left[of_picture] = False
                left[of_picture[kept]] = True
        return left

    def _written(self, piece: Piece) -> Written:
        if isinstance(piece, str):
            return (piece,)
        turn = self._family.turn
        return (*turn.before, *self._album.pictures[self._album.place(piece)].written, *turn.after)

    def _refuse_long(self, length: int, place: str) -> None:
        if length > self._family.max_length:
            raise InputError(
                f"prompt {place} has {length} tokens, of which the model reads "
                f"{self._family.max_length}: shorten the text, or lower max_pixels",
                "prompt_too_long",
                place,
            )


class _Album:
    """The distinct pictures of a call, by content, in the order in which they were added."""

    def __init__(self, family: Family, limits: PixelLimits) -> None:
        self._family = family
        self._limits = limits
        self.pictures: list[Picture] = []
        self._places: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    def add(self, piece: PicturePiece) -> None:
        # Prompts of a group mostly show the very same object.
        if id(piece) in self._keys:
            return
        picture = prepare_picture(self._family, piece, self._limits)
        assert picture.key is not None
        self._keys[id(piece)] = picture.key
        if picture.key not in self._places:
            self._places[picture.key] = len(self.pictures)
            self.pictures.append(picture)

    def place(self, piece: PicturePiece) -> int:
        return self._places[self._keys[id(piece)]]
