"""`python -m nightshift.demo.train`: trains the demo's models and writes their directories."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from nightshift.demo.catalogue import build_catalogue
from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.demo.scenes import Split
from nightshift.demo.train import coarse, scorer
from nightshift.demo.train.both import Stock, train_coarse, train_scorer
from nightshift.demo.train.pool import draw_pool

_DESCRIPTION = """Train the demo's models and write their directories. What was reached is kept
beside them at every check: the same command, given again after an interruption, goes on."""
_TRAINING_GROUPS = 20_000
_VALIDATION_GROUPS = 1_000


def main() -> None:
    """Parse, train what was asked for, measure it on the held-out catalogue, write the cards."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stock = Stock(
        training=draw_pool(arguments.seed, Split.TRAIN, arguments.groups),
        validation=draw_pool(arguments.seed, Split.VALIDATION, _VALIDATION_GROUPS),
        evaluation=build_catalogue(),
    )
    both = not (arguments.coarse or arguments.scorer)
    coarse_home: Path = arguments.out / "coarse" if arguments.out else coarse_dir()
    scorer_home: Path = arguments.out / "scorer" if arguments.out else scorer_dir()
    courses = []
    if arguments.coarse or both:
        minutes = arguments.minutes or coarse.MINUTES
        courses.append(train_coarse(coarse_home, stock, minutes=minutes, seed=arguments.seed))
    if arguments.scorer or both:
        minutes = arguments.minutes or scorer.MINUTES
        courses.append(
            train_scorer(scorer_home, coarse_home, stock, minutes=minutes, seed=arguments.seed)
        )
    for course in courses:
        course.forget()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nightshift.demo.train", description=_DESCRIPTION
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--coarse", action="store_true", help="train the open_clip model only")
    which.add_argument("--scorer", action="store_true", help="train the Qwen2.5-VL model only")
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"of training a model (default {coarse.MINUTES:g} and {scorer.MINUTES:g})",
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
