"""`python -m nightshift.demo.train`: trains the demo's models and writes their directories."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from nightshift.demo.catalogue import build_catalogue
from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.demo.scenes import Split
from nightshift.demo.train import coarse, scorer
from nightshift.demo.train.cards import coarse_card, scorer_card
from nightshift.demo.train.evaluate import (
    accuracies,
    coarse_orders,
    draw_items,
    evaluate,
    recalls,
)
from nightshift.demo.train.pool import Pool, draw_pool
from nightshift.demo.train.scorer import Stage
from nightshift.demo.train.tokenizers import coarse_tokenizer, scorer_tokenizer

_COARSE_ROUNDS = (100.0, 80.0)  # minutes, each round at half the rate of the one before
_TRAINING_GROUPS = 20_000
_VALIDATION_GROUPS = 1_000


def main() -> None:
    """Parse, train what was asked for, measure it on the held-out catalogue, write the cards."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(arguments.seed)
    training = draw_pool(arguments.seed, Split.TRAIN, arguments.groups)
    validation = draw_pool(arguments.seed, Split.VALIDATION, _VALIDATION_GROUPS)
    both = not (arguments.coarse or arguments.scorer)
    coarse_home: Path = arguments.out / "coarse" if arguments.out else coarse_dir()
    scorer_home: Path = arguments.out / "scorer" if arguments.out else scorer_dir()
    if arguments.coarse or both:
        minutes = arguments.minutes or sum(_COARSE_ROUNDS)
        _train_coarse(coarse_home, training, validation, minutes=minutes, seed=arguments.seed)
    if arguments.scorer or both:
        minutes = arguments.minutes or scorer.MINUTES
        _train_scorer(
            scorer_home, coarse_home, training, validation, minutes=minutes, seed=arguments.seed
        )


def _train_coarse(
    home: Path, training: Pool, validation: Pool, *, minutes: float, seed: int
) -> None:
    tokenizer = coarse_tokenizer(seed)
    model = coarse.build_model(tokenizer)
    rounds = []
    for number, usual in enumerate(_COARSE_ROUNDS):
        span = minutes * usual / sum(_COARSE_ROUNDS)
        curve = coarse.train(
            model,
            tokenizer,
            training,
            validation,
            minutes=span,
            seed=seed + number,
            rate=0.5**number,
        )
        rounds.append(Stage(name=f"round {number + 1}", minutes=span, curve=curve))
    coarse.save(model, tokenizer, home)
    catalogue = build_catalogue()
    orders = coarse_orders(catalogue, home, draw_items(catalogue.items))
    reached = {name: recalls(order, catalogue) for name, order in orders.items()}
    (home / "README.md").write_text(coarse_card(rounds, reached, seed=seed))


def _train_scorer(
    home: Path, coarse_home: Path, training: Pool, validation: Pool, *, minutes: float, seed: int
) -> None:
    tokenizer = scorer_tokenizer(seed)
    model, stages = scorer.train_in_stages(
        tokenizer, training, validation, coarse=coarse_home, minutes=minutes, seed=seed
    )
    scorer.save(model, tokenizer, home)
    catalogue = build_catalogue()
    reached = evaluate(catalogue, coarse=coarse_home, scorer=home)
    card = scorer_card(stages, reached, accuracies(catalogue, home), seed=seed)
    (home / "README.md").write_text(card)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nightshift.demo.train", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--coarse", action="store_true", help="train the open_clip model only")
    which.add_argument("--scorer", action="store_true", help="train the Qwen2.5-VL model only")
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"of training a model (default {sum(_COARSE_ROUNDS):g} and {scorer.MINUTES:g})",
    )
    parser.add_argument("--out", type=Path, help="write here instead of into the package")
    parser.add_argument("--seed", type=int, default=0, help="of the training scenes (default 0)")
    parser.add_argument(
        "--groups",
        type=int,
        default=_TRAINING_GROUPS,
        help="training scenes, each drawn three times (default %(default)s)",
    )
    return parser


if __name__ == "__main__":
    main()
