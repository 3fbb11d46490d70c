"""Trains the tiny Qwen2.5-VL in stages: first to match captions, last to compare images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
)

from nightshift.demo.train.batches import BatchMaker
from nightshift.demo.train.coarse import embed_texts
from nightshift.demo.train.course import Course, TrainingStage
from nightshift.demo.train.network import (
    Batch,
    build_model,
    build_processor,
    hidden_states,
    losses,
    see,
)
from nightshift.demo.train.optimizers import half_precision, muon_and_adam
from nightshift.demo.train.pool import Pool
from nightshift.demo.train.rows import IGNORED, Likeness, RowMaker
from nightshift.demo.train.tokenizers import token_id

_MATRIX_RATE = 2e-3
_OTHER_RATE = 1e-3
_ALIGNMENT_WEIGHT = 0.5
_ALIGNED_SHARE = 0.35  # of the stage in which the model learns to see
_STAGE_MINUTES = {
    "matching": 42,
    "everything": 21,
    "captions": 92,
    "glancing": 15,
    "pictures": 52,
    "rehearsal": 30,
}
MINUTES = float(sum(_STAGE_MINUTES.values()))
"""How long the shipped scorer was trained, on one core."""

_REHEARSAL_RATE = 0.4
_CHECKS = 12
_CHECK_BATCHES = 4

Draw = Callable[[Random], Batch]

_OPPOSITES = (("True", "False"), ("A", "B"), ("1", "0"))


class Alignment(nn.Module):
    """Pulls the mean visual token towards the coarse model's embedding of the caption.

    Without it the vision tower takes several times longer to tell shapes apart. Used in the
    beginning only, and not part of the model.
    """

    def __init__(self, coarse: Path, width: int, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        teacher = open_clip.create_model(f"local-dir:{coarse}")
        words = AutoTokenizer.from_pretrained(coarse)
        self._target: Callable[[list[str]], Tensor] = lambda texts: embed_texts(
            teacher, words, texts
        )
        self._tokenizer = tokenizer
        self.project = nn.Linear(width, teacher.text_projection.shape[1])
        self.scale = nn.Parameter(torch.tensor(2.5))

    def loss(self, encoded: Tensor, batch: Batch) -> Tensor:
        """Contrastive loss of a `matching` batch's visual tokens `[images, 25, width]`."""
        captions = [
            str(self._tokenizer.decode([word for word in row if word >= 0]))
            for row in batch.words.tolist()
        ]
        mean = functional.normalize(self.project(encoded.mean(1)).float(), dim=-1)
        logits = self.scale.exp() * mean @ self._target(captions).T
        return functional.cross_entropy(logits, torch.arange(len(logits)))


class Probe(nn.Module):
    """Tells at every token of a caption whether it fits, at every thing what it has in common.

    The label alone says one bit about a whole prompt; this says where it went wrong, and the
    model learns to match in a small part of the steps. Not part of the model.
    """

    def __init__(self, width: int, image_token: int) -> None:
        super().__init__()
        self._image_token = image_token
        self.of_word, self.of_thing = nn.Linear(width, 1), nn.Linear(width, len(Likeness))

    def loss(self, states: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy, of words and of things; zero where none is judged."""
        shows = batch.ids == self._image_token
        judged = batch.fits != IGNORED
        words = self._loss(self.of_word, states, batch.fits[..., None], judged & ~shows)
        bits = (batch.fits[..., None] >> torch.arange(len(Likeness))) & 1
        return words + self._loss(self.of_thing, states, bits, judged & shows)

    def _loss(self, judge: nn.Linear, states: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
        if not where.any():
            return states.new_zeros(())
        odds = judge(states[where]).float()
        return functional.binary_cross_entropy_with_logits(odds, wanted[where].float())


def train(
    course: Course,
    tokenizer: PreTrainedTokenizerBase,
    pool: Pool,
    validation: Pool,
    *,
    coarse: Path,
    minutes: float,
    seed: int,
) -> tuple[Qwen2_5_VLForConditionalGeneration, list[TrainingStage]]:
    """Train a new scorer in stages.

    Args:
        course: keeps what was reached.
        tokenizer: by `scorer_tokenizer`.
        pool: images of split `train`.
        validation: images of split `validation`.
        coarse: directory of the trained coarse model.
        minutes: of all stages together.
        seed: of the batches.
    """
    model = build_model(tokenizer)
    maker = RowMaker(tokenizer)
    batches = BatchMaker(maker, pool)
    check = checker(model, tokenizer, BatchMaker(maker, validation), seed)
    width = model.lm_head.in_features
    alignment, probe = Alignment(coarse, width, tokenizer), Probe(width, maker.image_token)
    draws: dict[str, Draw] = {
        "matching": batches.matching,
        "everything": batches.everything,
        "captions": batches.captions,
        "glancing": lambda rng: batches.glancing(rng, texts=False),
        "pictures": batches.image_questions,
        "rehearsal": batches.rehearsal,
    }
    stages = []
    for name, draw in draws.items():
        rng = Random(f"{seed}:{name}")
        seeing = alignment if name == "matching" else None
        rate = _REHEARSAL_RATE if name == "rehearsal" else 1.0
        optimizers = _optimizers(model, rate, probe, seeing)
        stages.append(
            course.stage(
                name,
                minutes=minutes * _STAGE_MINUTES[name] / MINUTES,
                checks=_CHECKS,
                rng=rng,
                modules=[model, probe, *([seeing] if seeing else [])],
                optimizers=optimizers,
                step=partial(_step, model, draw, rng, optimizers, probe, seeing),
                check=check,
            )
        )
    return model, stages


def checker(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    validation: BatchMaker,
    seed: int,
) -> Callable[[], dict[str, float]]:
    """Measures the accuracy on always the same validation batches, by kind of batch."""
    rng = Random(f"{seed}:validation")
    held = {
        name: [draw(rng) for _ in range(_CHECK_BATCHES)] for name, draw in validation.kinds.items()
    }
    opposite = torch.full((len(tokenizer),), IGNORED)
    for pair in _OPPOSITES:
        entry, other = (token_id(tokenizer, label) for label in pair)
        opposite[entry], opposite[other] = other, entry
    return lambda: {name: _accuracy(model, batches, opposite) for name, batches in held.items()}


def save(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, directory: Path
) -> None:
    """Write a directory that `AutoProcessor` and `AutoModelForImageTextToText` load."""
    state = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(directory, state_dict=state)
    build_processor(tokenizer).save_pretrained(directory)


@torch.no_grad()
def _accuracy(
    model: Qwen2_5_VLForConditionalGeneration, batches: Iterable[Batch], opposite: Tensor
) -> float:
    """Share of prompts whose right label has a larger logit than its opposite."""
    model.eval()
    right = []
    for batch in batches:
        requested = batch.answers >= 0
        logits = model.lm_head(hidden_states(model, batch)[requested])
        wanted = batch.answers[requested][:, None]
        right.append(logits.gather(1, wanted) > logits.gather(1, opposite[wanted]))
    return float(torch.cat(right).float().mean())


def _optimizers(
    model: nn.Module, rate: float, *beside: nn.Module | None
) -> list[torch.optim.Optimizer]:
    optimizers = muon_and_adam(
        model, matrix_rate=rate * _MATRIX_RATE, other_rate=rate * _OTHER_RATE
    )
    for other in filter(None, beside):
        optimizers += muon_and_adam(other, matrix_rate=_OTHER_RATE, other_rate=_OTHER_RATE)
    return optimizers


def _step(
    model: Qwen2_5_VLForConditionalGeneration,
    draw: Draw,
    rng: Random,
    optimizers: list[torch.optim.Optimizer],
    probe: Probe,
    alignment: Alignment | None,
    passed: float,
) -> dict[str, float]:
    model.train()
    batch = draw(rng)
    # The fused CPU attention is slow backwards: plain matrix products take a third off a step.
    with sdpa_kernel(SDPBackend.MATH), half_precision():
        recorded = see(model, batch.patches)
        states = hidden_states(model, batch, recorded)
        label_loss, word_loss = losses(model, states, batch)
        total = label_loss + word_loss + probe.loss(states, batch)
        if alignment and passed < _ALIGNED_SHARE:
            total = total + _ALIGNMENT_WEIGHT * alignment.loss(recorded, batch)
    torch.autograd.backward(total)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return {"labels": label_loss.item(), "words": word_loss.item()}
