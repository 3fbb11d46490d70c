"""A run says why its pairs are not packed, whichever of its parts forbids it."""

from dataclasses import replace

import pytest

from nightshift.models.engine.runtime.report import LoadReport
from nightshift.models.scorers.binding import unbatched_reason
from nightshift.schema.params import ScorerParams
from nightshift.scoring.methods.registry import METHODS

PACKED = LoadReport(
    family="Any",
    decoder="any",
    n_layers=4,
    image_handling="as they are",
    unpacked_reason=None,
    no_attn_site_reason=None,
)
UNPACKED = replace(PACKED, unpacked_reason="tokens look ahead")


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("default", None),
        ("paper", "a prompt of its own for each pair"),
        ("code", "norm_match=sequence"),
    ],
)
def test_a_preset_that_cannot_be_packed_says_why(preset: str, expected: str | None) -> None:
    method = METHODS["retllm"].preset(preset)
    reason = unbatched_reason(
        PACKED, ScorerParams(score=method.score, enhancement=method.enhancement)
    )

    assert (expected in reason) if expected and reason else reason is expected


def test_the_same_preset_without_what_forbids_it_is_packed() -> None:
    off = METHODS["retllm"].preset("code").enhancement.model_copy(update={"trigger": "never"})

    assert unbatched_reason(PACKED, ScorerParams(enhancement=off)) is None


def test_a_family_that_cannot_be_packed_says_why() -> None:
    assert unbatched_reason(UNPACKED, ScorerParams()) == "tokens look ahead"
