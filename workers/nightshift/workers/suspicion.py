"""Scores that cannot be true: many pairs that all have the very same."""

from collections.abc import Sequence

from nightshift.schema.errors import ModelError
from nightshift.scoring.log_odds import MAX_LOG_ODDS
from nightshift.stores.results.writes import PairScoreRow

__all__ = ["refuse_equal_scores"]

_SUSPICIOUS = 8
# A score at its bound came there by way of logarithms: it is the bound but for rounding.
_ROUNDING = 1e-3


def refuse_equal_scores(rows: Sequence[PairScoreRow]) -> None:
    """Look at the scores of a whole job, however its pairs went through the model.

    Pairs with one content are one pair. Two kinds of scores may well be equal of many pairs. A
    model that writes numbers writes a few of them again and again: its scorer looks at the logits
    instead. And a probability that float32 cannot tell from 1 has one score whatever it was, of a
    word among all words or of a candidate in its list (a list of one is always sure): such pairs
    are equal only if their log-sum-exp is too.

    Raises:
        ModelError: Eight or more distinct pairs all have the very same score.
    """
    rows = [row for row in rows if row.written is None]
    distinct = len({row.pair_key for row in rows})
    if distinct < _SUSPICIOUS or len({_score_identity(row) for row in rows}) > 1:
        return
    raise ModelError(
        f"{distinct} distinct pairs of one job all have the score {rows[0].margin}: the model "
        "does not tell them apart; check its weights, or try float32"
    )


def _score_identity(row: PairScoreRow) -> tuple[float, float | None]:
    """The values that distinguish scores: the margin, and at its bound the log-sum-exp too."""
    at_bound = row.margin > MAX_LOG_ODDS - _ROUNDING
    return row.margin, row.logsumexp if at_bound else None
