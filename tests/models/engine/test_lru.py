"""The cache keeps recent values within its bytes and drops the least recently used first."""

from hypothesis import given
from hypothesis import strategies as st

from nightshift.models.engine.runtime.lru import ByteLimitedLru


def test_what_was_not_wanted_for_longest_goes_first() -> None:
    recent: ByteLimitedLru[str] = ByteLimitedLru(10)
    recent.keep("a", "A", 4)
    recent.keep("b", "B", 4)
    assert recent.get("a") == "A"

    recent.keep("c", "C", 4)

    assert (recent.get("a"), recent.get("b"), recent.get("c")) == ("A", None, "C")


def test_what_is_larger_than_all_of_it_drives_nothing_out() -> None:
    recent: ByteLimitedLru[str] = ByteLimitedLru(10)
    recent.keep("a", "A", 4)

    recent.keep("huge", "H", 11)

    assert (recent.get("a"), recent.get("huge")) == ("A", None)


@given(st.lists(st.integers(0, 12), max_size=30))
def test_it_holds_the_last_ones_that_fit(sizes: list[int]) -> None:
    recent: ByteLimitedLru[int] = ByteLimitedLru(20)
    for i, size in enumerate(sizes):
        recent.keep(i, i, size)

    held = [i for i in range(len(sizes)) if recent.get(i) is not None]
    assert sum(sizes[i] for i in held) <= 20
    fitting = [i for i, size in enumerate(sizes) if size <= 20]
    assert held == fitting[len(fitting) - len(held) :]
