"""Pictures on their way into prompts: seen by the vision tower now, or on an earlier night."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isqrt

import numpy as np
import torch
from PIL import Image

from nightshift.models.engine.family import Family, PixelLimits, PromptImage, VisualTokens
from nightshift.models.engine.runtime.token_budget import TokenBudget, tokens_per_pass
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.tokens import CodedImage, StoredVisualTokens
from nightshift.models.inputs.content import ImagePiece
from nightshift.models.inputs.images import rgb
from nightshift.scoring.codecs import Grid

__all__ = ["encode_images", "prepare_image", "to_stored", "token_grid"]

# Visual tokens of one pass of the vision tower on a CPU: few, so that they stay in its cache.
_CPU_VISUAL_TOKENS_PER_PASS = 512
# A CPU rounds products of few rows otherwise than those of many. Smaller pictures go through the
# vision tower alone, so that their tokens are the same bits whatever else is looked at that night.
_SINGLE_BELOW = 16


def prepare_image(family: Family, piece: ImagePiece, limits: PixelLimits) -> PromptImage:
    """What a prompt shows of a picture, with its key; on the CPU, and any thread may call it.

    What comes with pixels is resized and normalised, unless that was done before.

    Raises:
        InputError: It cannot be resized within the limits.
        ModelError: A codec needs a grid of tokens that the family has not.
    """
    match piece:
        case PromptImage():
            return piece
        case StoredVisualTokens():
            return _of_seen(piece)
        case CodedImage():
            return _coded(prepare_image(family, piece.image, limits), piece.codec)
        case Image.Image():
            picture = family.prepare_image(_scaled(rgb(piece), limits.long_side), limits)
            shape = repr((picture.grid, picture.prompt_parts))
            return replace(picture, key=_digest(shape, picture.pixels.flatten().numpy().data))
        case _:
            raise TypeError(f"{type(piece).__name__} was prepared for another kind of model")


def _scaled(image: Image.Image, long_side: int | None) -> Image.Image:
    """An image whose longer side is as long as asked; the other one is rounded down."""
    if long_side is None:
        return image
    longer = max(image.size)
    width, height = (max(1, side * long_side // longer) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def encode_images(family: Family, pictures: Sequence[PromptImage]) -> list[VisualTokens]:
    """What prompts show of each picture, in passes that bound the vision tower's memory.

    What was seen lately is not looked at again: candidates of one query are often another's.

    Raises:
        InputError: A picture does not fit even alone; `subject_id` is its place among the fresh.
    """
    found: dict[int, VisualTokens] = {}
    fresh: list[int] = []
    for i, picture in enumerate(pictures):
        if picture.stored is not None:
            like = family.decoder.head_weight
            found[i] = _taken_apart(picture.stored.values, picture.stored.n_deepstack, like)
        elif (recalled := _recalled(family, picture)) is not None:
            found[i] = _coded_tokens(family, picture, recalled)
        else:
            fresh.append(i)
    for i, tokens in zip(fresh, _see(family, [pictures[i] for i in fresh]), strict=True):
        # As the tower made them: codebooks of one codec differ.
        _remember(family, pictures[i], tokens)
        found[i] = _coded_tokens(family, pictures[i], tokens)
    return [found[i] for i in range(len(pictures))]


def to_stored(picture: PromptImage, seen: VisualTokens) -> StoredVisualTokens:
    """The visual tokens of a whole picture, to be kept."""
    values = torch.cat([seen.tokens, *seen.deepstack], dim=1)
    return StoredVisualTokens(
        values=values.to("cpu", torch.float32).numpy(),
        n_deepstack=len(seen.deepstack),
        grid=picture.grid,
        tokens=token_grid(picture),
        prompt_parts=picture.prompt_parts,
    )


def token_grid(picture: PromptImage) -> Grid:
    """Tokens in time, rows and columns; all in time where the picture's shape does not say."""
    if len(picture.grid) == 3 and picture.n_tokens:
        time, height, width = picture.grid
        merge = isqrt(time * height * width // picture.n_tokens)
        if merge and time * (height // merge) * (width // merge) == picture.n_tokens:
            return (time, height // merge, width // merge)
    return (picture.n_tokens, 1, 1)


def _see(family: Family, pictures: Sequence[PromptImage]) -> list[VisualTokens]:
    device = family.decoder.head_weight.device.type
    seen: dict[int, VisualTokens] = {}

    def passes(places: Sequence[int], budget: int) -> Iterator[list[int]]:
        batch: list[int] = []
        n_tokens = 0
        for i in places:
            if device == "cpu" and pictures[i].n_tokens < _SINGLE_BELOW:
                yield [i]
                continue
            if batch and n_tokens + pictures[i].n_tokens > budget:
                yield batch
                batch, n_tokens = [], 0
            batch.append(i)
            n_tokens += pictures[i].n_tokens
        if batch:
            yield batch

    def forward(places: list[int]) -> None:
        found = family.encode_images([pictures[i] for i in places])
        seen.update(zip(places, found, strict=True))
        family.counters.images += len(places)

    def single_image(places: list[int]) -> tuple[str, int] | None:
        return (str(places[0]), pictures[places[0]].n_tokens) if len(places) == 1 else None

    n_tokens = tokens_per_pass(device, cpu=_CPU_VISUAL_TOKENS_PER_PASS)
    TokenBudget(n_tokens, "picture").run(range(len(pictures)), passes, forward, single_image)
    return [seen[i] for i in range(len(pictures))]


def _recalled(family: Family, picture: PromptImage) -> VisualTokens | None:
    if picture.key is None or (cached := family.vision_cache.get(picture.key)) is None:
        return None
    device = family.decoder.head_weight.device
    return VisualTokens(
        tokens=cached.tokens.to(device),
        deepstack=tuple(features.to(device) for features in cached.deepstack),
    )


def _remember(family: Family, picture: PromptImage, seen: VisualTokens) -> None:
    if picture.key is None:
        return
    # Copies: what a pass of the vision tower returns are parts of one large tensor.
    tokens, *deep = (one.to("cpu", copy=True) for one in (seen.tokens, *seen.deepstack))
    n_bytes = tokens.nbytes + sum(one.nbytes for one in deep)
    family.vision_cache.keep(
        picture.key, VisualTokens(tokens=tokens, deepstack=tuple(deep)), n_bytes
    )


def _coded_tokens(family: Family, picture: PromptImage, seen: VisualTokens) -> VisualTokens:
    """What the picture's codec leaves of its visual tokens; all of them where it has none."""
    if picture.codec is None:
        return seen
    whole = to_stored(picture, seen)
    values = picture.codec.round_trip(whole.values, whole.tokens)
    return _taken_apart(values, whole.n_deepstack, family.decoder.head_weight)


def _of_seen(piece: StoredVisualTokens) -> PromptImage:
    kept = None if piece.kept is None else piece.kept.tolist()
    said = repr((piece.grid, piece.tokens, piece.prompt_parts, kept))
    return PromptImage(
        pixels=torch.empty(0),
        grid=piece.grid,
        n_tokens=int(np.prod(piece.tokens)),
        prompt_parts=piece.prompt_parts,
        stored=piece,
        kept=None if piece.kept is None else torch.from_numpy(piece.kept),
        key=_digest(said, np.ascontiguousarray(piece.values).reshape(-1).data),
    )


def _coded(picture: PromptImage, codec: Codec) -> PromptImage:
    kept = codec.kept(token_grid(picture))
    assert picture.key is not None
    return replace(
        picture,
        codec=codec,
        kept=None if kept is None else torch.from_numpy(kept),
        key=_digest(str(codec.spec), picture.key),
    )


def _digest(said: str, data: bytes | memoryview) -> bytes:
    """16 bytes that tell pictures apart by what prompts show of them."""
    found = hashlib.blake2b(said.encode(), digest_size=16)
    found.update(data)
    return found.digest()


def _taken_apart(values: np.ndarray, n_deepstack: int, like: torch.Tensor) -> VisualTokens:
    whole = torch.from_numpy(values).to(like.device, like.dtype)
    tokens, *deep = whole.chunk(1 + n_deepstack, dim=1)
    return VisualTokens(tokens=tokens, deepstack=tuple(deep))
