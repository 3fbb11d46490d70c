"""What a worker reads and scores at a time: groups stay together, lists always."""

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
    most = size + more
    batches = list(micro_batches(groups, size, most))

    pairs = [(shared, one) for batch in batches for shared, others in batch for one in others]
    assert pairs == [(shared, one) for shared, others in groups for one in others]
    parts = [shared for batch in batches for shared, _ in batch]
    assert all(parts.count(i) == -(-len(others) // most) for i, others in groups)
    for batch in batches:
        assert sum(len(others) for _, others in batch) <= (most if len(batch) == 1 else size)


def test_no_batch_and_no_half_of_a_job_cuts_a_list() -> None:
    batches = list(micro_batches(LISTS.groups, 12))
    one, other = split_payload(LISTS)
    alone = LISTS.model_copy(update={"groups": LISTS.groups[:1]})

    assert [len(batch) for batch in batches] == [2] * 15
    assert {len(others) for batch in batches for _, others in batch} == {5}
    assert [half.n_units for half in (one, other)] == [75, 75]
    assert one.groups + other.groups == LISTS.groups
    assert split_payload(alone) is None
