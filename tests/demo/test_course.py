"""A training of hours: every stage of it runs, and what was reached outlives the process."""

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn

from nightshift.demo.catalogue import build_catalogue
from nightshift.demo.scenes import Split
from nightshift.demo.train import batches, coarse, scorer
from nightshift.demo.train.both import Stock, train_coarse, train_scorer
from nightshift.demo.train.course import Course, TrainingStage
from nightshift.demo.train.evaluate import coarse_orders, draw_items, evaluate
from nightshift.demo.train.optimizers import muon_and_adam
from nightshift.demo.train.pool import draw_pool

INSTANT, FOR_EVER = 1e-9, 1e6  # minutes: the first takes one step a stage


class Toy:
    """A model that learns from one drawn number a step, and is kept after every step."""

    def __init__(self, folder: Path, **options: float) -> None:
        self.course = Course(folder / "toy-training.pt", **options)
        self.model = nn.Linear(2, 2)
        for weight in self.model.parameters():
            nn.init.ones_(weight)
        self.drawn: list[float] = []

    def stage(self, name: str, *, minutes: float, interrupted_after: int = 99) -> TrainingStage:
        rng = Random(name)
        optimizers = muon_and_adam(self.model, matrix_rate=0.1, other_rate=0.1)

        def step(_passed: float) -> dict[str, float]:
            if len(self.drawn) == interrupted_after:
                raise KeyboardInterrupt
            self.drawn.append(rng.random())
            loss = self.model(torch.tensor([self.drawn[-1], 1.0])).square().sum()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            return {"loss": loss.item()}

        return self.course.stage(
            name,
            minutes=minutes,
            checks=10**15,
            rng=rng,
            modules=[self.model],
            optimizers=optimizers,
            step=step,
            check=lambda: {"right": 1.0},
        )


def test_a_training_goes_on_after_an_interruption_as_if_there_had_been_none(
    tmp_path: Path,
) -> None:
    complete = Toy(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        complete.stage("one", minutes=FOR_EVER, interrupted_after=6)
    before = Toy(tmp_path / "torn")
    with pytest.raises(KeyboardInterrupt):
        before.stage("one", minutes=FOR_EVER, interrupted_after=3)
    after = Toy(tmp_path / "torn")
    with pytest.raises(KeyboardInterrupt):
        after.stage("one", minutes=FOR_EVER, interrupted_after=3)

    assert [*before.drawn, *after.drawn] == complete.drawn
    torch.testing.assert_close(
        after.model.state_dict(), complete.model.state_dict(), rtol=0, atol=0
    )
    last = Toy(tmp_path / "torn").stage("one", minutes=INSTANT)
    assert [point["step"] for point in last.curve] == [1, 2, 3, 4, 5, 6, 7]


def test_stages_that_had_ended_are_not_taken_again(tmp_path: Path) -> None:
    before = Toy(tmp_path)
    first = before.stage("one", minutes=INSTANT)
    with pytest.raises(KeyboardInterrupt):
        before.stage("two", minutes=FOR_EVER, interrupted_after=3)

    after = Toy(tmp_path)

    assert after.stage("one", minutes=INSTANT) == first
    assert after.drawn == []
    assert len(after.stage("two", minutes=INSTANT).curve) == 3
    assert len(after.drawn) == 1


def test_another_training_or_one_that_was_forgotten_begins_again(tmp_path: Path) -> None:
    Toy(tmp_path, seed=0).stage("one", minutes=INSTANT)
    other = Toy(tmp_path, seed=1)
    assert len(other.stage("one", minutes=INSTANT).curve) == 1
    assert len(other.drawn) == 1

    other.course.forget()

    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def stock() -> Iterator[Stock]:
    """A few images, and batches that are as small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "_BATCH", 8)
        patch.setattr(scorer, "_CHECK_BATCHES", 1)
        for name, size in {"_IMAGES": 6, "_GROUPS": 2, "_GLANCED_GROUPS": 3}.items():
            patch.setattr(batches, name, size)
        yield Stock(
            training=draw_pool(0, Split.TRAIN, 12),
            validation=draw_pool(0, Split.VALIDATION, 6),
            evaluation=build_catalogue(items=32, queries=2),
        )


@pytest.mark.night
def test_every_stage_of_both_models_runs_and_what_is_written_can_be_loaded(
    stock: Stock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coarse_folder, scorer_folder = tmp_path / "coarse", tmp_path / "scorer"

    for _ in range(2):
        with caplog.at_level("INFO", logger="nightshift.demo"):
            caplog.clear()
            train_coarse(coarse_folder, stock, minutes=INSTANT, seed=0)
            train_scorer(scorer_folder, coarse_folder, stock, minutes=INSTANT, seed=0)

    assert [record.msg for record in caplog.records if "course" in record.name] == [
        "going on from %s"
    ] * 2
    orders = coarse_orders(stock.evaluation, coarse_folder, draw_items(stock.evaluation.items))
    assert {order.shape for order in orders.values()} == {(2, 32)}
    assert set(evaluate(stock.evaluation, coarse=coarse_folder, scorer=scorer_folder)) == set(
        orders
    )
    taken = [
        re.findall(r"- (.+): 1 steps", (home / "README.md").read_text())
        for home in (coarse_folder, scorer_folder)
    ]
    assert taken == [
        ["round 1", "round 2"],
        ["matching", "everything", "captions", "glancing", "image pairs", "rehearsal"],
    ]
