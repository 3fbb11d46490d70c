"""Both models from stock to card: trained, written, measured as they were written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from nightshift.demo.catalogue import Catalogue
from nightshift.demo.train import coarse, scorer
from nightshift.demo.train.cards import coarse_card, scorer_card
from nightshift.demo.train.course import Course
from nightshift.demo.train.evaluate import (
    accuracies,
    coarse_orders,
    draw_items,
    evaluate,
    recalls,
)
from nightshift.demo.train.pool import Pool
from nightshift.demo.train.tokenizers import coarse_tokenizer, scorer_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Data that both models are trained, validated and at last measured on."""

    training: Pool
    validation: Pool
    evaluation: Catalogue


def train_coarse(home: Path, stock: Stock, *, minutes: float, seed: int) -> Course:
    """Train the open_clip model and write its directory.

    Args:
        home: The directory. What was reached is kept beside it.
        stock: Of scenes.
        minutes: Of training, in processor time.
        seed: Of the first weights and the batches.

    Returns:
        The course, to be forgotten when nothing that follows can be interrupted.
    """
    course = _course(home, stock, minutes, seed)
    tokenizer = coarse_tokenizer(seed)
    model, rounds = coarse.train(
        course, tokenizer, stock.training, stock.validation, minutes=minutes, seed=seed
    )
    coarse.save(model, tokenizer, home)
    orders = coarse_orders(stock.evaluation, home, draw_items(stock.evaluation.items))
    reached = {name: recalls(order, stock.evaluation) for name, order in orders.items()}
    (home / "README.md").write_text(coarse_card(rounds, reached, seed=seed))
    return course


def train_scorer(
    home: Path, coarse_home: Path, stock: Stock, *, minutes: float, seed: int
) -> Course:
    """As `train_coarse`, the Qwen2.5-VL model; the coarse model must lie in `coarse_home`."""
    course = _course(home, stock, minutes, seed)
    tokenizer = scorer_tokenizer(seed)
    model, stages = scorer.train(
        course,
        tokenizer,
        stock.training,
        stock.validation,
        coarse=coarse_home,
        minutes=minutes,
        seed=seed,
    )
    scorer.save(model, tokenizer, home)
    reached = evaluate(stock.evaluation, coarse=coarse_home, scorer=home)
    card = scorer_card(stages, reached, accuracies(stock.evaluation, home), seed=seed)
    (home / "README.md").write_text(card)
    return course


def _course(home: Path, stock: Stock, minutes: float, seed: int) -> Course:
    torch.manual_seed(seed)
    return Course(
        home.with_name(f"{home.name}-training.pt"),
        minutes=minutes,
        seed=seed,
        groups=len(stock.training.scenes),
    )
