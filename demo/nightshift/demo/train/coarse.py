"""Trains the tiny open_clip model with the usual contrastive loss."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerBase

from nightshift.demo.render import IMAGE_SIZE
from nightshift.demo.scenes import describe
from nightshift.demo.train.course import Course, TrainingStage
from nightshift.demo.train.optimizers import half_precision, muon_and_adam
from nightshift.demo.train.pool import Pool
from nightshift.demo.train.tokenizers import CONTEXT_LENGTH

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BATCH = 256
_MATRIX_RATE = 4e-3
_OTHER_RATE = 2e-3
_CHECK_EVERY_MINUTES = 5
_ROUNDS = (100.0, 80.0)  # minutes
MINUTES = sum(_ROUNDS)
"""How long the shipped model was trained, on one core."""

_MAX_LOGIT_SCALE = math.log(100)


def model_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The architecture, in open_clip's own form."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "layers": 4,
            "width": 128,
            "head_width": 32,
            "patch_size": 16,
            "mlp_ratio": 3.0,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "local",
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
            "width": 128,
            "heads": 4,
            "layers": 3,
            "mlp_ratio": 3.0,
        },
    }


def build_model(tokenizer: PreTrainedTokenizerBase) -> CLIP:
    """An untrained open_clip model of about 1.3 million parameters."""
    return CLIP(**model_config(tokenizer))


def train(
    course: Course,
    tokenizer: PreTrainedTokenizerBase,
    pool: Pool,
    validation: Pool,
    *,
    minutes: float,
    seed: int,
) -> tuple[CLIP, list[TrainingStage]]:
    """Train a new model in rounds, each with a falling rate, at half of that of the one before.

    Args:
        course: keeps what was reached.
        tokenizer: by `coarse_tokenizer`.
        pool: images of split `train`.
        validation: images of split `validation`.
        minutes: of all rounds together.
        seed: of the batches.

    Returns:
        The model, and a stage a round. The curves hold `loss`, and recall@1 and recall@5 among the
        validation images, both directions averaged.
    """
    model = build_model(tokenizer)
    rounds = []
    for number, usual in enumerate(_ROUNDS):
        rate, span = 0.5**number, minutes * usual / MINUTES
        rng = Random(f"{seed + number}:coarse")
        optimizers = muon_and_adam(
            model, matrix_rate=rate * _MATRIX_RATE, other_rate=rate * _OTHER_RATE
        )
        rounds.append(
            course.stage(
                f"round {number + 1}",
                minutes=span,
                checks=max(1, round(span / _CHECK_EVERY_MINUTES)),
                rng=rng,
                modules=[model],
                optimizers=optimizers,
                step=partial(_step, model, tokenizer, pool, rng, optimizers),
                check=partial(_validate, model, tokenizer, validation, seed + number),
            )
        )
    return model, rounds


def embed_images(model: CLIP, images: NDArray[np.uint8]) -> Tensor:
    """Unit vectors `[n, dim]` of images `[n, 80, 80, 3]`, float32."""
    model.eval()
    with torch.no_grad():
        parts = [
            model.encode_image(pixels_of(images[i : i + 256]), normalize=True)
            for i in range(0, len(images), 256)
        ]
    return torch.cat(parts)


def embed_texts(model: CLIP, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """Unit vectors `[n, dim]` of texts, float32."""
    model.eval()
    with torch.no_grad():
        parts = [
            model.encode_text(_ids(tokenizer, texts[i : i + 256]), normalize=True)
            for i in range(0, len(texts), 256)
        ]
    return torch.cat(parts)


def pixels_of(images: NDArray[np.uint8]) -> Tensor:
    """Normalised pixels `[n, 3, 80, 80]`, as open_clip's own transform gives them."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


def save(model: CLIP, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write a directory that `open_clip.create_model_and_transforms("local-dir:…")` loads."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    config = {
        "model_cfg": model_config(tokenizer),
        "preprocess_cfg": {
            "mean": _MEAN,
            "std": _STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (directory / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / "open_clip_model.safetensors")


def _step(
    model: CLIP,
    tokenizer: PreTrainedTokenizerBase,
    pool: Pool,
    rng: Random,
    optimizers: list[torch.optim.Optimizer],
    _passed: float,
) -> dict[str, float]:
    model.train()
    groups = rng.sample(range(len(pool.scenes)), _BATCH)
    members = [rng.randrange(3) for _ in groups]
    texts = [describe(pool.scene(*key), rng) for key in zip(groups, members, strict=True)]
    with sdpa_kernel(SDPBackend.MATH), half_precision():
        images = model.encode_image(pixels_of(pool.images[groups, members]), normalize=True)
        captions = model.encode_text(_ids(tokenizer, texts), normalize=True)
    logits = model.logit_scale.exp() * images.float() @ captions.float().T
    target = torch.arange(len(groups))
    loss = (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        model.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
    return {"loss": loss.item()}


def _validate(
    model: CLIP, tokenizer: PreTrainedTokenizerBase, pool: Pool, seed: int
) -> dict[str, float]:
    rng = Random(f"{seed}:coarse:validation")
    images = embed_images(model, pool.images[:, 0])
    texts = [describe(scene, rng) for scene, _ in pool.scenes]
    scores = embed_texts(model, tokenizer, texts) @ images.T
    own = scores.diagonal()
    ranks = torch.stack([(scores > own[:, None]).sum(1), (scores > own[None, :]).sum(0)])
    return {f"recall@{k}": float((ranks < k).float().mean()) for k in (1, 5)}


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    encoded = tokenizer(
        texts,
        return_tensors="pt",
        max_length=CONTEXT_LENGTH,
        padding="max_length",
        truncation=True,
    )
    ids: Tensor = encoded["input_ids"]
    return ids
