"""The common part of families by transformers: all of a `Family` but its images.

The token that stands for images is in `_image_tokens`.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from nightshift.models.engine.chat_turn import read_turn
from nightshift.models.engine.family import (
    DEFAULT_VISUAL_TOKENS,
    Decoder,
    EmbeddedPrompts,
    PixelLimits,
    PromptImage,
    VisualTokens,
)
from nightshift.models.engine.runtime.counters import WorkCounters
from nightshift.models.engine.runtime.lru import ByteLimitedLru
from nightshift.models.engine.runtime.report import LoadReport
from nightshift.models.engine.text import PromptParts, TextEncoder
from nightshift.models.families._image_tokens import ImageToken
from nightshift.models.families._llama import LlamaLayerOps, no_layer_ops_reason
from nightshift.models.inputs.images import not_resized
from nightshift.schema.errors import ModelError

__all__ = ["Pretrained", "max_tiles"]

# Visual tokens kept in host memory: of some 70 images of a model 3,584 wide in bfloat16, or of
# 2,000 of one 128 wide.
_RECENT_BYTES = 256 * 1024**2
# Unit vectors that a quantised layer is applied to at a time.
_UNITS = 1024
# Types in which weights stand for themselves.
_PLAIN = {torch.float32, torch.bfloat16, torch.float16}
# Decoders whose feed-forwards are mixtures of gated ones.
_MIXTURES = {"qwen3_moe", "qwen3_vl_moe_text"}


def max_tiles(limits: PixelLimits, pixels: int, tokens: int) -> int:
    """The number of tiles of one size that an image may become; at least one.

    Args:
        limits: What the operator asked for.
        pixels: Of a tile.
        tokens: Visual tokens of a tile.
    """
    if limits.max_pixels is not None:
        return max(1, limits.max_pixels // pixels)
    return max(1, DEFAULT_VISUAL_TOKENS // tokens)


class Pretrained:
    """A `Family` but for its images, which each family adds; and its masks, if not causal.

    Args:
        model: In evaluation mode, on its device.
        processor: The checkpoint's own.
        name: For messages.

    Raises:
        ModelError: The model is none that is read here.
    """

    #: How images become visual tokens, for the load report.
    image_handling: str
    #: Codecs that reduce by blocks need tokens in rows and columns of the whole image.
    no_codecs: tuple[str, ...] = ("sample2", "pool2")
    #: Why prompts cannot be packed whatever the decoder is.
    unpacked_reason: str | None = None

    def __init__(self, model: Any, processor: Any, name: str) -> None:  # noqa: ANN401 - see below
        # transformers types its classes loosely.
        language = self._language(model)
        config = model.config.get_text_config()
        self.counters = WorkCounters()
        self.vision_cache: ByteLimitedLru[VisualTokens] = ByteLimitedLru(_RECENT_BYTES)
        self._model = model
        self._processor: Any = processor
        self._images = processor.image_processor
        self._image_token = ImageToken.of(model, processor)
        self.text = TextEncoder(processor.tokenizer, name)
        self.turn = read_turn(processor, self.text, self._image_token.text, name)
        self.text.answer_lead = self.turn.answer_lead
        self.text.answer_behind = "".join(x for x in self.turn.tail[-1:] if isinstance(x, str))
        self.stop_ids = _stop_ids(model.generation_config, processor.tokenizer)
        self.max_length = int(config.max_position_embeddings)
        if not hasattr(language.layers[0].mlp, "gate_proj") and config.model_type not in _MIXTURES:
            raise ModelError(f"{name}: the feed-forwards of {config.model_type} have no gate", name)
        unpacked_reason = self.unpacked_reason or no_layer_ops_reason(config)
        self.layer_ops = None if unpacked_reason else LlamaLayerOps(language)
        self.decoder = _decoder(language, _head(model, name), name)
        self.report = LoadReport(
            family=type(model).__name__,
            decoder=config.model_type,
            n_layers=len(self.decoder.layers),
            image_handling=self.image_handling,
            unpacked_reason=unpacked_reason,
            no_attn_site_reason=None
            if self.decoder.feed_forward_norms
            else "its layers add attention and feed-forward at once",
            no_codecs=self.no_codecs,
            n_deepstack=self._n_deepstack(),
        )

    def with_labels(self, labels: Sequence[str]) -> Self:
        """See `Family`."""
        text, ends_with = self.text.apart(labels)
        if not ends_with:
            return self
        labelled = copy(self)
        labelled.text = text
        labelled.turn = replace(self.turn, tail=(*self.turn.tail, *ends_with), answer_lead="")
        return labelled

    def prepare_image(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        """See `Family`."""
        try:
            return self._prepare(image, limits)
        except ValueError as error:
            raise not_resized(image, error) from error

    def encode_images(self, images: Sequence[PromptImage]) -> list[VisualTokens]:
        """See `Family`."""
        pixels = torch.cat([image.pixels for image in images])
        features = self._features(pixels.to(self._model.device, self._model.dtype), images)
        lengths = [image.n_tokens for image in images]
        return [VisualTokens(tokens=tokens) for tokens in features.split(lengths)]

    def is_visual(self, ids: Tensor) -> Tensor:
        """See `Family`."""
        return self._image_token.is_at(ids)

    def positions(self, ids: Tensor, images: Sequence[PromptImage]) -> Tensor:  # noqa: ARG002
        """See `Family`: one axis, in reading order."""
        return torch.arange(len(ids))[None]

    def embed(self, ids: Tensor) -> Tensor:
        """See `Family`."""
        embeddings: Tensor = self._model.get_input_embeddings()(ids.to(self._model.device))
        return embeddings

    def decode(self, embedded: EmbeddedPrompts) -> Tensor:
        """See `Family`."""
        # Without a mask attention is plainly causal: padding on the right is never looked at.
        output = self._language(self._model)(
            inputs_embeds=embedded.states, use_cache=False, **self._decoding(embedded)
        )
        states: Tensor = output.last_hidden_state
        return states

    def _language(self, model: Any) -> Any:  # noqa: ANN401 - as above
        return model.model.language_model

    def _n_deepstack(self) -> int:
        return 0

    def _decoding(self, embedded: EmbeddedPrompts) -> dict[str, Any]:  # noqa: ARG002
        """Arguments of the decoder beside the embeddings; it knows the reading order."""
        return {}

    def _features(self, pixels: Tensor, images: Sequence[PromptImage]) -> Tensor:  # noqa: ARG002
        """Visual tokens (tokens of all images, width) of all tiles."""
        features: Tensor = self._model.get_image_features(pixels).pooler_output
        return features.flatten(0, 1)

    def _prepare(self, image: Image.Image, limits: PixelLimits) -> PromptImage:
        """Raises ValueError where the image cannot be resized."""
        raise NotImplementedError

    def _prompt_image(self, pixels: Tensor, grid: tuple[int, ...], processed: Any) -> PromptImage:  # noqa: ANN401
        """An image with as many visual tokens as the processor says.

        Args:
            pixels: As `encode_images` takes them.
            grid: As `encode_images` takes it.
            processed: The image processor's output for this one image.
        """
        written: PromptParts = self.text.trusted(self._processor.replace_image_token(processed, 0))
        return PromptImage(
            pixels=pixels,
            grid=grid,
            n_tokens=self._image_token.count(written),
            prompt_parts=written,
        )


def _stop_ids(generation: Any, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401 - as above
    configured = generation.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _decoder(language: Any, head_weight: Tensor, name: str) -> Decoder:  # noqa: ANN401 - as above
    return Decoder(
        layers=list(language.layers),
        feed_forwards=[layer.mlp for layer in language.layers],
        feed_forward_norms=_feed_forward_norms(language.layers),
        gate_sizes=[_gate_size(layer.mlp, language.norm.weight, name) for layer in language.layers],
        norm=language.norm,
        head_weight=head_weight,
    )


def _feed_forward_norms(layers: Any) -> list[nn.Module] | None:  # noqa: ANN401 - as above
    # Gemma's layers norm the attention's output too, and call that one post_attention.
    for name in ("pre_feedforward_layernorm", "post_attention_layernorm"):
        if hasattr(layers[0], name):
            return [getattr(layer, name) for layer in layers]
    return None


def _head(model: Any, name: str) -> Tensor:  # noqa: ANN401 - as above
    weight = _plain_weight(model.get_output_embeddings())
    if weight is None:
        raise ModelError(
            f"{name}: its output head is quantised, and logits are read in full precision: take a "
            "checkpoint that leaves the head out of the quantisation, as most do",
            name,
        )
    return weight.detach()


@torch.inference_mode()
def _gate_size(feed_forward: Any, like: Tensor, name: str) -> float:  # noqa: ANN401 - as above
    """Mean absolute weight of a gate projection; of a mixture of experts, of all of theirs."""
    if like.is_meta:
        return 0.0
    if hasattr(feed_forward, "gate_proj"):
        gate = feed_forward.gate_proj
        weight = _plain_weight(gate)
        if weight is None:
            # What a quantised layer stores is no weight: what it makes of unit vectors is.
            weight = _applied(gate, like)
    else:
        # (experts, gate above up, width)
        experts = getattr(feed_forward.experts, "gate_up_proj", None)
        if experts is None or not _is_plain(experts):
            raise ModelError(
                f"{name}: its experts are quantised in a way whose gates cannot be read: take a "
                "checkpoint whose experts are not quantised",
                name,
            )
        weight = experts.chunk(2, dim=1)[0]
    return float(weight.abs().mean(dtype=torch.float32))


def _applied(linear: Any, like: Tensor) -> Tensor:  # noqa: ANN401 - as above
    units = torch.eye(linear.in_features, dtype=like.dtype, device=like.device)
    return torch.cat([linear(some) for some in units.split(_UNITS)])


def _plain_weight(linear: Any) -> Tensor | None:  # noqa: ANN401 - as above
    """The weight of a layer that is not quantised; AWQ's and GPTQ's have none."""
    weight: Tensor | None = getattr(linear, "weight", None)
    return weight if weight is not None and _is_plain(weight) else None


def _is_plain(weight: Tensor) -> bool:
    return type(weight) in {Tensor, nn.Parameter} and weight.dtype in _PLAIN
