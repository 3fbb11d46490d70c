"""A worker stays with its weights, unless something more urgent waits."""

from dataclasses import dataclass

from nightshift.schema.messages import queue_name
from nightshift.schema.states import Stage
from nightshift.workers.queues import pick


@dataclass
class Waiting:
    """The fields of a run that `pick` reads; the most urgent and oldest runs come first."""

    fingerprint: str | None
    priority: int = 5
    stage: Stage = Stage.SCORE

    @property
    def model(self) -> str | None:
        return self.fingerprint

    @property
    def queue(self) -> str:
        return queue_name(self.stage, self.fingerprint)


def test_a_fresh_worker_takes_the_model_of_the_most_urgent_and_oldest_run():
    assert pick([Waiting("a"), Waiting("b")], None) == {"score.a"}


def test_runs_of_equal_priority_do_not_make_a_worker_swap_models():
    assert pick([Waiting("a"), Waiting("b")], "b") == {"score.b"}


def test_a_more_urgent_run_is_worth_a_swap():
    assert pick([Waiting("a", priority=0), Waiting("b")], "b") == {"score.a"}


def test_a_dry_model_is_swapped_for_that_of_the_next_run():
    assert pick([Waiting("c"), Waiting("a")], "b") == {"score.c"}


def test_all_queues_of_the_chosen_model_and_those_without_a_model_are_served():
    waiting = [
        Waiting("a", stage=Stage.EMBED),
        Waiting(None, stage=Stage.RANK),
        Waiting("a", priority=7, stage=Stage.SEARCH),
        Waiting("b"),
    ]

    assert pick(waiting, None) == {"embed.a", "search.a", "rank"}
