"""Scores that cannot be true: many pairs that all read the very same."""

from collections.abc import Sequence

from nightshift.schema.errors import ModelError
from nightshift.stores.results_write import PairScoreRow

__all__ = ["refuse_equal_scores"]

_SUSPICIOUS = 8


def refuse_equal_scores(rows: Sequence[PairScoreRow]) -> None:
    """Look at the scores of a whole job, however its pairs went through the model.

    Pairs with one content are one pair. A model that writes numbers may well write one number eight
    times: its scorer looks at the logits instead.

    Raises:
        ModelError: Eight or more distinct pairs all read the very same.
    """
    rows = [row for row in rows if row.written is None]
    distinct = len({row.pair_key for row in rows})
    if distinct >= _SUSPICIOUS and len({(row.margin, row.logsumexp) for row in rows}) == 1:
        raise ModelError(
            f"{distinct} distinct pairs of one job all have the score {rows[0].margin}: the model "
            "does not tell them apart; check its weights, or try float32"
        )
