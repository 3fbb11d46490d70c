"""The interface of a model family to the engine; each family is one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from PIL import Image
from torch import Tensor, nn

from nightshift.models.engine.chat_turn import Turn
from nightshift.models.engine.runtime.counters import WorkCounters
from nightshift.models.engine.runtime.lru import ByteLimitedLru
from nightshift.models.engine.runtime.report import LoadReport
from nightshift.models.engine.text import PromptParts, TextEncoder
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.models.inputs.images import PreparedImage

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "DEFAULT_VISUAL_TOKENS",
    "Decoder",
    "EmbeddedPrompts",
    "Family",
    "LayerOps",
    "PixelLimits",
    "PromptImage",
    "Rotary",
    "VisualTokens",
]

#: RetLLM's published bound. Checkpoints allow many times as much: a single photograph would then
#: take 16,384 tokens.
DEFAULT_VISUAL_TOKENS = 512
#: The same in pixels, 28 × 28 a token.
DEFAULT_MAX_PIXELS = DEFAULT_VISUAL_TOKENS * 28 * 28


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLimits:
    """Bounds on the pixels of a resized image."""

    #: None means the checkpoint's own.
    min_pixels: int | None = None
    #: None means the checkpoint's own, or `DEFAULT_MAX_PIXELS` where that is less; where images
    #: are cut into tiles of one size, `DEFAULT_VISUAL_TOKENS`.
    max_pixels: int | None = None
    #: What the longer side is scaled to before, its aspect kept; None leaves the image as it is.
    long_side: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptImage(PreparedImage):
    """One preprocessed image, in host memory."""

    #: float32; the shape is the family's affair.
    pixels: Tensor
    #: Its shape, as the family counts it: patches in time, height and width, or tiles.
    grid: tuple[int, ...]
    #: Visual tokens in the prompt.
    n_tokens: int
    #: What stands for it in a prompt; one id for each visual token, and whatever belongs to them.
    prompt_parts: PromptParts
    #: What the vision tower made of it on an earlier night; `pixels` are empty then.
    stored: StoredVisualTokens | None = None
    #: What its visual tokens go through before they are shown.
    codec: Codec | None = None
    #: Places, ascending, of the visual tokens that a prompt shows; None where it shows all.
    kept: Tensor | None = None
    #: Tells images apart by what prompts show of them; None where nobody asked.
    key: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualTokens:
    """Visual tokens of one image: the output of the vision tower and its projection."""

    #: (n_tokens or as many as are kept, width), in the place of token embeddings.
    tokens: Tensor
    #: As many and as wide each, added to the stream behind the first layers, one a layer
    #: (DeepStack, arXiv 2406.04334); none in most families.
    deepstack: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPrompts:
    """Prompts, or parts of them, as the first layer of the decoder takes them."""

    #: (n, length, width), padded on the right.
    states: Tensor
    #: (axes, n, length), on the CPU.
    positions: Tensor
    #: Bool (n, length): where a visual token stands.
    visual: Tensor
    #: Of each layer that has any, of each row: (visual tokens, width) to add behind it.
    deepstack: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """The parts of the language model that are looked at and acted on from outside."""

    #: Modules whose output is the residual stream (batch, length, width).
    layers: Sequence[nn.Module]
    #: The feed-forward of each layer: maps normed states to what is added to the stream.
    feed_forwards: Sequence[nn.Module]
    #: What stands before each feed-forward: its input is the stream after the layer's attention.
    #: None where a layer adds both at once.
    feed_forward_norms: Sequence[nn.Module] | None
    #: Mean absolute weight of each feed-forward's gate projection.
    gate_sizes: Sequence[float]
    #: The norm between the last layer and the head.
    norm: nn.Module
    #: (vocabulary, width), without bias.
    head_weight: Tensor


#: Cosines and sines of rotary positions, (batch, length, head width) each.
Rotary = tuple[Tensor, Tensor]


class LayerOps(Protocol):
    """A decoder layer taken apart, for an engine that decides itself who attends to whom.

    States are (batch, length, width), heads (batch, heads, length, head width).
    """

    def rotary(self, states: Tensor, positions: Tensor) -> Rotary:
        """Cosines and sines of positions (axes, batch, length); dtype and device of `states`."""
        ...

    def attention_input(self, layer: int, states: Tensor) -> Tensor:
        """The input of attention (batch, length, width), after its norm."""
        ...

    def queries(self, layer: int, normed: Tensor, rotary: Rotary) -> Tensor:
        """Query heads; a multiple of the key/value heads (grouped-query attention)."""
        ...

    def keys_values(self, layer: int, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Key heads and value heads."""
        ...

    def add_attention(self, layer: int, states: Tensor, heads: Tensor) -> Tensor:
        """The stream after attention, from the stream before it and what the heads found."""
        ...

    def feed_forward_input(self, layer: int, states: Tensor) -> Tensor:
        """The input of the feed-forward, after its norm; its output is then added to `states`."""
        ...


class Family(Protocol):
    """A loaded multimodal language model."""

    @property
    def report(self) -> LoadReport:
        """The load report: what works with it, and what does not."""
        ...

    @property
    def counters(self) -> WorkCounters:
        """Counters of its work since it was loaded."""
        ...

    @property
    def vision_cache(self) -> ByteLimitedLru[VisualTokens]:
        """Recent visual tokens by the key of their image, in host memory."""
        ...

    @property
    def layer_ops(self) -> LayerOps | None:
        """Its layers taken apart; None where only whole prompts can be read."""
        ...

    @property
    def decoder(self) -> Decoder:
        """Its language model."""
        ...

    @property
    def text(self) -> TextEncoder:
        """Its tokenizer for text that is only text."""
        ...

    @property
    def turn(self) -> Turn:
        """Its chat template around one user turn."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt it reads."""
        ...

    def with_labels(self, labels: Sequence[str]) -> Self:
        """The same model, its prompts ending where each of these labels is one token.

        Raises:
            ModelError: A label takes more tokens than one.
        """
        ...

    def prepare_image(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        """Resize and normalise an RGB image, on the CPU; any thread may call it.

        Raises:
            InputError: It cannot be resized within the limits.
        """
        ...

    def encode_images(self, images: Sequence[PromptImage]) -> list[VisualTokens]:
        """Visual tokens of each image, on the device: all that the decoder needs of it."""
        ...

    def is_visual(self, ids: Tensor) -> Tensor:
        """Bool, of the shape of `ids`: where a visual token goes."""
        ...

    def positions(self, ids: Tensor, images: Sequence[PromptImage]) -> Tensor:
        """Positions (axes, length) of one prompt's ids (length,), on the CPU."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (batch, length, width); those of visual tokens are overwritten."""
        ...

    def decode(self, embedded: EmbeddedPrompts) -> Tensor:
        """Run the decoder over whole prompts.

        Returns:
            States after the final norm, (n, length, width).
        """
        ...
