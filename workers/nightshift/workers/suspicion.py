"""Refuses a job's scores if many distinct pairs all have the same one."""

from collections.abc import Sequence

from nightshift.scoring.constant_scores import refuse_equal_values
from nightshift.scoring.log_odds import MAX_LOG_ODDS
from nightshift.stores.results.scores import PairScoreRow

__all__ = ["refuse_equal_scores"]

# A score at its bound came there by way of logarithms: it is the bound but for rounding.
_ROUNDING = 1e-3


def refuse_equal_scores(rows: Sequence[PairScoreRow]) -> None:
    """Refuse the scores of a job if eight or more distinct pairs have the same one.

    Pairs with one content are one pair. Two kinds of scores may well be equal of many pairs. A
    model that writes numbers writes a few of them again and again: its scorer looks at the logits
    instead. And a probability that float32 cannot tell from 1 has one score whatever it was, of a
    word among all words or of a candidate in its list (a list of one is always sure): such pairs
    are equal only if their log-sum-exp is too.

    Raises:
        ModelError: Eight or more distinct pairs all have the very same score.
    """
    rows = [row for row in rows if row.written is None]
    if rows:
        refuse_equal_values(
            [_score_identity(row) for row in rows],
            len({row.pair_key for row in rows}),
            f"distinct pairs of one job all have the score {rows[0].margin}",
        )


def _score_identity(row: PairScoreRow) -> tuple[float, float | None]:
    """The values that distinguish scores: the margin, and at its bound the log-sum-exp too."""
    at_bound = row.margin > MAX_LOG_ODDS - _ROUNDING
    return row.margin, row.logsumexp if at_bound else None
