"""Reading ahead of the model: in order, so far and no further, and never past an error."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import pytest

from nightshift.workers.contents import ahead


class Reader:
    """Remembers what it was asked to prepare."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.done = Semaphore(0)

    def prepare(self, batch: int, _pool: ThreadPoolExecutor) -> str:
        self.begun.append(batch)
        if batch < 0:
            raise ValueError(f"batch {batch} is broken")
        self.done.release()
        return f"prepared {batch}"

    def ahead(self, batches: Iterable[int]) -> Iterable[str]:
        return ahead(batches, self.prepare, depth=2)


def test_batches_come_in_the_order_of_the_job() -> None:
    assert list(Reader().ahead(range(9))) == [f"prepared {i}" for i in range(9)]


def test_while_the_model_is_busy_with_a_batch_the_next_two_are_read_and_no_more() -> None:
    reader = Reader()
    batches = iter(reader.ahead(range(9)))

    next(batches)  # with the model now

    assert all(reader.done.acquire(timeout=10) for _ in range(3))
    assert reader.begun == [0, 1, 2]
    next(batches)
    assert reader.done.acquire(timeout=10)
    assert reader.begun == [0, 1, 2, 3]


def test_an_error_comes_in_its_batchs_turn_and_ends_the_reading() -> None:
    reader = Reader()
    batches = iter(reader.ahead([0, 1, -1, *range(3, 9)]))

    assert [next(batches), next(batches)] == ["prepared 0", "prepared 1"]
    with pytest.raises(ValueError, match="batch -1 is broken"):
        next(batches)
    assert reader.begun[:3] == [0, 1, -1]
    assert len(reader.begun) <= 5
