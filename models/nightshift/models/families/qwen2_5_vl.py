"""Qwen2.5-VL by transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel, rotate_half
from transformers.utils.logging import disable_progress_bar

from nightshift.models.describe import revision
from nightshift.models.engine.family import (
    DEFAULT_MAX_PIXELS,
    Decoder,
    Picture,
    PixelLimits,
    Rotary,
)
from nightshift.models.engine.text import TextEncoder, read_turn
from nightshift.models.spec import Hub, parse_spec
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.models import ModelFacts

__all__ = ["Qwen25VL", "load", "quickened"]


def load(facts: ModelFacts, device: torch.device) -> "Qwen25VL":
    """Load the model; safetensors only, and no code from its repository.

    Raises:
        ModelError: It cannot be loaded.
    """
    source = parse_spec(facts.spec).source
    pin = revision(source) if isinstance(source, Hub) else "main"
    disable_progress_bar()
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            str(source),
            revision=pin,
            dtype=getattr(torch, facts.card["precision"]),
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
        )
        processor = AutoProcessor.from_pretrained(str(source), revision=pin)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{facts.spec} cannot be loaded: {error}", facts.spec) from error
    return Qwen25VL(quickened(model.eval().to(device=device)), processor, facts.spec)


def quickened(model: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
    """The same model, the convolution that embeds patches changed into the product that it is.

    Each patch comes cut out, so the convolution has one position; as such it takes half of a small
    vision tower's time on a CPU.
    """
    tower = model.model.visual
    tower.patch_embed = _PatchEmbedding(tower.patch_embed.proj.weight)
    return model


class Qwen25VL:
    """A `Family`.

    Args:
        model: In evaluation mode, on its device.
        processor: The checkpoint's own.
        name: For messages.
    """

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        processor: Qwen2_5_VLProcessor,
        name: str,
    ) -> None:
        language = model.model.language_model
        self._model = model
        self._images = processor.image_processor
        self._image_token = int(model.config.image_token_id)
        self.text = TextEncoder(processor.tokenizer, name)
        self.turn = read_turn(processor, name)
        self.max_length = int(model.config.get_text_config().max_position_embeddings)
        # A window of attention would have to be cut across prefix and suffix.
        self.steps = None if language.has_sliding_layers else _Steps(language)
        self.decoder = Decoder(
            layers=list(language.layers),
            feed_forwards=[layer.mlp for layer in language.layers],
            gate_sizes=[
                float(layer.mlp.gate_proj.weight.detach().abs().mean(dtype=torch.float32))
                for layer in language.layers
            ],
            norm=language.norm,
            head_weight=model.lm_head.weight.detach(),
        )
        if self.turn.picture.count(self._image_token) != 1:
            raise ModelError(f"the chat template of {name} does not mark a picture once", name)

    def picture_ids(self, picture: Picture) -> list[int]:
        """See `Family`."""
        at = self.turn.picture.index(self._image_token)
        before, after = self.turn.picture[:at], self.turn.picture[at + 1 :]
        return [*before, *[self._image_token] * picture.n_tokens, *after]

    def prepare_pictures(self, images: Sequence[Image.Image], limits: PixelLimits) -> list[Picture]:
        """See `Family`."""
        own = self._images.size
        most = limits.max_pixels or min(own["longest_edge"], DEFAULT_MAX_PIXELS)
        least = min(limits.min_pixels or own["shortest_edge"], most)
        size = {"shortest_edge": least, "longest_edge": most}
        merged = self._images.merge_size**2
        pictures = []
        for place, image in enumerate(images):
            try:
                found = self._images(images=[image], size=size, return_tensors="pt")
            except ValueError as error:
                raise InputError(
                    f"picture {place} of {image.width} × {image.height} cannot be resized: {error}",
                    "image_shape",
                    str(place),
                ) from error
            time, height, width = found["image_grid_thw"][0].tolist()
            pictures.append(
                Picture(
                    pixels=found["pixel_values"],
                    grid=(time, height, width),
                    n_tokens=time * height * width // merged,
                )
            )
        return pictures

    def see(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """See `Family`."""
        pixels = torch.cat([picture.pixels for picture in pictures]).to(self._model.device)
        grids = torch.tensor([picture.grid for picture in pictures], device=self._model.device)
        return list(self._model.get_image_features(pixels, grids).pooler_output)

    def is_visual(self, ids: Tensor) -> Tensor:
        """See `Family`."""
        return ids == self._image_token

    def positions(self, ids: Tensor, pictures: Sequence[Picture]) -> Tensor:
        """See `Family`: time, height and width of multimodal rotary positions."""
        if not pictures:
            return torch.arange(len(ids)).expand(3, -1)
        positions, _ = self._model.model.get_rope_index(
            ids[None],
            mm_token_type_ids=self.is_visual(ids)[None].int(),
            image_grid_thw=torch.tensor([picture.grid for picture in pictures]),
        )
        found: Tensor = positions[:, 0]
        return found

    def embed(self, ids: Tensor) -> Tensor:
        """See `Family`."""
        embeddings: Tensor = self._model.get_input_embeddings()(ids.to(self._model.device))
        return embeddings

    def decode(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """See `Family`."""
        # Without a mask attention is plainly causal: padding on the right is never looked at.
        output = self._model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions.to(self._model.device),
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state
        return states


class _PatchEmbedding(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, patches: Tensor) -> Tensor:
        return functional.linear(patches.to(self.weight.dtype), self.weight.flatten(1))


class _Steps:
    """See `Steps`: the modules of the model's own layers, in their order."""

    def __init__(self, language: Qwen2_5_VLTextModel) -> None:
        self._layers: list[Any] = list(language.layers)  # torch types a module's parts loosely
        self._rotary = language.rotary_emb

    def rotary(self, states: Tensor, positions: Tensor) -> Rotary:
        cos, sin = self._rotary(states, positions.to(states.device))
        return cos, sin

    def normed(self, layer: int, states: Tensor) -> Tensor:
        found: Tensor = self._layers[layer].input_layernorm(states)
        return found

    def queries(self, layer: int, normed: Tensor, rotary: Rotary) -> Tensor:
        attention = self._layers[layer].self_attn
        return _rotated(_heads(attention.q_proj(normed), attention.head_dim), rotary)

    def keys_values(self, layer: int, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        attention = self._layers[layer].self_attn
        keys = _rotated(_heads(attention.k_proj(normed), attention.head_dim), rotary)
        return keys, _heads(attention.v_proj(normed), attention.head_dim)

    def attended(self, layer: int, states: Tensor, heads: Tensor) -> Tensor:
        found: Tensor = self._layers[layer].self_attn.o_proj(heads.transpose(1, 2).flatten(2))
        return found.add_(states)

    def feed_forward_input(self, layer: int, states: Tensor) -> Tensor:
        found: Tensor = self._layers[layer].post_attention_layernorm(states)
        return found


def _heads(projected: Tensor, width: int) -> Tensor:
    found: Tensor = projected.unflatten(2, (-1, width)).transpose(1, 2)
    return found


def _rotated(heads: Tensor, rotary: Rotary) -> Tensor:
    cos, sin = rotary
    turned: Tensor = rotate_half(heads)
    return (heads * cos[:, None]).addcmul_(turned, sin[:, None])
