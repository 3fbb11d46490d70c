"""Images of prompts: encoded by the vision tower now, or stored on an earlier night."""

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
# A CPU rounds products of few rows otherwise than those of many. Smaller images go through the
# vision tower alone, so that their tokens are the same bits whatever else is looked at that night.
_SINGLE_BELOW = 16


def prepare_image(family: Family, piece: ImagePiece, limits: PixelLimits) -> PromptImage:
    """The image as a prompt shows it, with its key; on the CPU, any thread may call it.

    What comes with pixels is resized and normalised, unless that was done before.

    Raises:
        InputError: It cannot be resized within the limits.
        ModelError: A codec needs a grid of tokens that the family has not.
    """
    match piece:
        case PromptImage():
            return piece
        case StoredVisualTokens():
            return _of_stored(piece)
        case CodedImage():
            return _coded(prepare_image(family, piece.image, limits), piece.codec)
        case Image.Image():
            fresh = family.prepare_image(_scaled(rgb(piece), limits.long_side), limits)
            shape = repr((fresh.grid, fresh.prompt_parts))
            return replace(fresh, key=_digest(shape, fresh.pixels.flatten().numpy().data))
        case _:
            raise TypeError(f"{type(piece).__name__} was prepared for another kind of model")


def _scaled(image: Image.Image, long_side: int | None) -> Image.Image:
    """An image whose longer side is as long as asked; the other one is rounded down."""
    if long_side is None:
        return image
    longer = max(image.size)
    width, height = (max(1, side * long_side // longer) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def encode_images(family: Family, images: Sequence[PromptImage]) -> list[VisualTokens]:
    """Visual tokens of each image, in passes that bound the vision tower's memory.

    Recently encoded images come from a cache: candidates of one query are often another's.

    Raises:
        InputError: An image does not fit even alone; `subject_id` is its place among the fresh.
    """
    encoded: dict[int, VisualTokens] = {}
    fresh: list[int] = []
    for i, image in enumerate(images):
        if image.stored is not None:
            like = family.decoder.head_weight
            encoded[i] = _split_layers(image.stored.values, image.stored.n_deepstack, like)
        elif (recalled := _recalled(family, image)) is not None:
            encoded[i] = _coded_tokens(family, image, recalled)
        else:
            fresh.append(i)
    for i, tokens in zip(fresh, _run_tower(family, [images[i] for i in fresh]), strict=True):
        # As the tower made them: codebooks of one codec differ.
        _remember(family, images[i], tokens)
        encoded[i] = _coded_tokens(family, images[i], tokens)
    return [encoded[i] for i in range(len(images))]


def to_stored(image: PromptImage, visual: VisualTokens) -> StoredVisualTokens:
    """The visual tokens of a whole image, to be kept."""
    values = torch.cat([visual.tokens, *visual.deepstack], dim=1)
    return StoredVisualTokens(
        values=values.to("cpu", torch.float32).numpy(),
        n_deepstack=len(visual.deepstack),
        grid=image.grid,
        tokens=token_grid(image),
        prompt_parts=image.prompt_parts,
    )


def token_grid(image: PromptImage) -> Grid:
    """Tokens in time, rows and columns; all in time where the image's shape does not say."""
    if len(image.grid) == 3 and image.n_tokens:
        time, height, width = image.grid
        merge = isqrt(time * height * width // image.n_tokens)
        if merge and time * (height // merge) * (width // merge) == image.n_tokens:
            return (time, height // merge, width // merge)
    return (image.n_tokens, 1, 1)


def _run_tower(family: Family, images: Sequence[PromptImage]) -> list[VisualTokens]:
    device = family.decoder.head_weight.device.type
    encoded: dict[int, VisualTokens] = {}

    def passes(places: Sequence[int], budget: int) -> Iterator[list[int]]:
        batch: list[int] = []
        n_tokens = 0
        for i in places:
            if device == "cpu" and images[i].n_tokens < _SINGLE_BELOW:
                yield [i]
                continue
            if batch and n_tokens + images[i].n_tokens > budget:
                yield batch
                batch, n_tokens = [], 0
            batch.append(i)
            n_tokens += images[i].n_tokens
        if batch:
            yield batch

    def forward(places: list[int]) -> None:
        tokens = family.encode_images([images[i] for i in places])
        encoded.update(zip(places, tokens, strict=True))
        family.counters.images += len(places)

    def single_image(places: list[int]) -> tuple[str, int] | None:
        return (str(places[0]), images[places[0]].n_tokens) if len(places) == 1 else None

    n_tokens = tokens_per_pass(device, cpu=_CPU_VISUAL_TOKENS_PER_PASS)
    TokenBudget(n_tokens, "image").run(range(len(images)), passes, forward, single_image)
    return [encoded[i] for i in range(len(images))]


def _recalled(family: Family, image: PromptImage) -> VisualTokens | None:
    if image.key is None or (cached := family.vision_cache.get(image.key)) is None:
        return None
    device = family.decoder.head_weight.device
    return VisualTokens(
        tokens=cached.tokens.to(device),
        deepstack=tuple(features.to(device) for features in cached.deepstack),
    )


def _remember(family: Family, image: PromptImage, visual: VisualTokens) -> None:
    if image.key is None:
        return
    # Copies: what a pass of the vision tower returns are parts of one large tensor.
    layers = (visual.tokens, *visual.deepstack)
    tokens, *deepstack = (layer.to("cpu", copy=True) for layer in layers)
    n_bytes = tokens.nbytes + sum(layer.nbytes for layer in deepstack)
    family.vision_cache.keep(
        image.key, VisualTokens(tokens=tokens, deepstack=tuple(deepstack)), n_bytes
    )


def _coded_tokens(family: Family, image: PromptImage, visual: VisualTokens) -> VisualTokens:
    """Visual tokens after the image's codec; unchanged where it has none."""
    if image.codec is None:
        return visual
    stored = to_stored(image, visual)
    values = image.codec.round_trip(stored.values, stored.tokens)
    return _split_layers(values, stored.n_deepstack, family.decoder.head_weight)


def _of_stored(piece: StoredVisualTokens) -> PromptImage:
    kept = None if piece.kept is None else piece.kept.tolist()
    shape = repr((piece.grid, piece.tokens, piece.prompt_parts, kept))
    return PromptImage(
        pixels=torch.empty(0),
        grid=piece.grid,
        n_tokens=int(np.prod(piece.tokens)),
        prompt_parts=piece.prompt_parts,
        stored=piece,
        kept=None if piece.kept is None else torch.from_numpy(piece.kept),
        key=_digest(shape, np.ascontiguousarray(piece.values).reshape(-1).data),
    )


def _coded(image: PromptImage, codec: Codec) -> PromptImage:
    kept = codec.kept(token_grid(image))
    assert image.key is not None
    return replace(
        image,
        codec=codec,
        kept=None if kept is None else torch.from_numpy(kept),
        key=_digest(str(codec.spec), image.key),
    )


def _digest(shape: str, data: bytes | memoryview) -> bytes:
    """16 bytes that identify an image by what prompts show of it."""
    digest = hashlib.blake2b(shape.encode(), digest_size=16)
    digest.update(data)
    return digest.digest()


def _split_layers(values: np.ndarray, n_deepstack: int, like: torch.Tensor) -> VisualTokens:
    layers = torch.from_numpy(values).to(like.device, like.dtype)
    tokens, *deepstack = layers.chunk(1 + n_deepstack, dim=1)
    return VisualTokens(tokens=tokens, deepstack=tuple(deepstack))
