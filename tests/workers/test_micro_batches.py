"""A worker reads and scores micro-batches: groups stay together, lists always."""

from hypothesis import given
from hypothesis import strategies as st

from nightshift.schema.messages import ScorePayload
from nightshift.stores.ledger.retries import split_payload
from nightshift.workers.groups import micro_batches

LISTS = ScorePayload(
    shared_side="query", groups=tuple((query, (1, 2, 3, 4, 5)) for query in range(30)), lists=True
)

groups_of = st.lists(st.integers(1, 40), max_size=12).map(
    lambda sizes: [(i, tuple(range(n))) for i, n in enumerate(sizes)]
)


@given(groups_of, st.integers(1, 20), st.integers(1, 20))
def test_every_pair_is_scored_once_in_order_and_no_small_group_is_cut(
    groups: list[tuple[int, tuple[int, ...]]], size: int, more: int
) -> None:
    peak = size + more
    batches = list(micro_batches(groups, size, peak))

    pairs = [(shared, other) for batch in batches for shared, others in batch for other in others]
    assert pairs == [(shared, other) for shared, others in groups for other in others]
    parts = [shared for batch in batches for shared, _ in batch]
    assert all(parts.count(i) == -(-len(others) // peak) for i, others in groups)
    for batch in batches:
        assert sum(len(others) for _, others in batch) <= (peak if len(batch) == 1 else size)


def test_no_batch_and_no_half_of_a_job_cuts_a_list() -> None:
    batches = list(micro_batches(LISTS.groups, 12))
    first, second = split_payload(LISTS)
    separate = LISTS.model_copy(update={"groups": LISTS.groups[:1]})

    assert [len(batch) for batch in batches] == [2] * 15
    assert {len(others) for batch in batches for _, others in batch} == {5}
    assert [half.n_units for half in (first, second)] == [75, 75]
    assert first.groups + second.groups == LISTS.groups
    assert split_payload(separate) is None
