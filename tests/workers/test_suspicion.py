"""Eight distinct pairs with the very same score are a broken model, not eight scores."""

from dataclasses import replace

import numpy as np
import pytest

from nightshift.schema.errors import ModelError
from nightshift.scoring.log_odds import MAX_LOG_ODDS, over_list, over_vocabulary
from nightshift.stores.results.scores import PairScoreRow
from nightshift.workers.suspicion import refuse_equal_scores


def row(content: int, margin: float = 0.5, logsumexp: float | None = 3.0) -> PairScoreRow:
    unset = dict.fromkeys(PairScoreRow.__dataclass_fields__)
    pair = {"query_id": 1, "item_id": content, "pair_key": bytes([content])}
    return PairScoreRow(**{**unset, **pair, "margin": margin, "logsumexp": logsumexp})


@pytest.mark.parametrize("margin", [0.5, -20.0, MAX_LOG_ODDS])
@pytest.mark.parametrize("logsumexp", [3.0, None])
def test_eight_distinct_pairs_with_one_reading_are_refused(margin: float, logsumexp: float | None):
    with pytest.raises(ModelError, match=f"8 distinct pairs .* have the score {margin}:"):
        refuse_equal_scores([row(content, margin, logsumexp) for content in range(8)])


@pytest.mark.parametrize("margin", [0.0, 0.5, 16.0, -MAX_LOG_ODDS])
def test_eight_equal_scores_are_refused_whatever_else_was_read(margin: float):
    with pytest.raises(ModelError, match="8 distinct pairs"):
        refuse_equal_scores([row(content, margin, content / 7) for content in range(8)])


def test_fewer_others_or_the_same_content_are_no_reason():
    refuse_equal_scores([])
    refuse_equal_scores([row(content) for content in range(7)])
    refuse_equal_scores([row(1) for _ in range(20)])
    refuse_equal_scores([*(row(content) for content in range(20)), row(21, 0.25)])


@pytest.mark.parametrize("sure", [over_vocabulary(5.0, 5.0), over_list([5.0])[0], MAX_LOG_ODDS])
def test_many_pairs_may_be_as_sure_as_float32_can_be(sure: float):
    margin = float(np.float32(sure))

    refuse_equal_scores([row(content, margin, content / 7) for content in range(20)])


def test_one_number_may_be_written_of_many_pairs():
    refuse_equal_scores(
        [replace(row(content, 0.5, None), written="Answer: 0.6") for content in range(8)]
    )
