"""The scoring benchmark measures what its rows say, and reports every broken promise."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.scoring import Row, measure
from benchmarks.scoring_columns import stored
from benchmarks.scoring_pairs import cases
from benchmarks.scoring_promises import broken_promises
from benchmarks.scoring_setup import build

FIELDS = {
    "case", "queries_per_image", "enhancement", "source", "loop_pairs_per_s",
    "batched_pairs_per_s", "pairs_per_s", "ratio", "ratio_batched", "flop_bound", "max_abs_diff",
    "peak_memory_mb", "matrix_share",
}  # fmt: skip
#: Keeps every promise, of every preset, on a CPU and on a GPU.
KEPT = Row(
    case="text_to_image", queries_per_image=16, enhancement=False, source="pixels",
    loop_pairs_per_s=10, batched_pairs_per_s=40, pairs_per_s=200, ratio=20, ratio_batched=5,
    flop_bound=5, max_abs_diff=1e-6, peak_memory_mb=100, matrix_share=0.5,
)  # fmt: skip

#: What says which promises a row has to keep.
CONDITIONS = {"case", "queries_per_image", "enhancement", "source"}


@pytest.mark.parametrize(
    ("changed", "preset", "on_cpu", "message"),
    [
        ({"case": "freeret", "ratio": 0.99}, "tiny", True, "ratio is 0.99, not 1"),
        ({"source": "tokens", "ratio_batched": 0.94}, "2b", True, "ratio_batched is 0.94"),
        ({"max_abs_diff": 2e-4}, "2b", True, "max_abs_diff is 0.0002"),
        ({"ratio": 9.9}, "tiny", True, "ratio is 9.9, not 10"),
        ({"ratio": 19.0, "queries_per_image": 64}, "tiny", True, "ratio is 19, not 20"),
        ({"ratio": 4.9, "enhancement": True}, "tiny", True, "ratio is 4.9, not 5"),
        ({"ratio_batched": 3.4}, "tiny", True, "ratio_batched is 3.4, not 3.5"),
        ({"ratio_batched": 3.4}, "small", True, "ratio_batched is 3.4, not 3.5"),
        ({"ratio_batched": 1.7, "enhancement": True}, "small", True, "not 1.75"),
        ({"ratio": 0.99}, "2b", False, "ratio is 0.99, not 1"),
        ({"ratio": 7.9}, "7b", False, "ratio is 7.9, not 8"),
        ({"matrix_share": 0.44}, "7b", False, "matrix_share is 0.44, not 0.45"),
    ],
)
def test_each_promise_that_is_broken_is_reported_and_no_other(changed, preset, on_cpu, message):
    kept = {**KEPT, **{name: changed[name] for name in changed if name in CONDITIONS}}
    (line,) = broken_promises([kept, {**kept, **changed}], preset, on_cpu=on_cpu)

    assert message in line


@pytest.mark.parametrize(
    ("changed", "preset", "on_cpu"),
    [
        # What only text to image promises, from pixels, in the presets that promise it.
        ({"ratio": 1.5, "ratio_batched": 1.0}, "2b", True),
        ({"ratio": 1.5, "ratio_batched": 1.0, "source": "tokens"}, "tiny", True),
        ({"ratio": 1.5, "ratio_batched": 1.0, "case": "image_to_text"}, "tiny", True),
        ({"ratio": 1.5, "queries_per_image": 4}, "tiny", True),
        # A GPU computes in bfloat16.
        ({"max_abs_diff": 0.1, "ratio": 1.5, "matrix_share": 0.1}, "2b", False),
    ],
)
def test_what_nobody_promised_is_not_reported(changed, preset, on_cpu):
    assert broken_promises([{**KEPT, **changed}], preset, on_cpu=on_cpu) == []


@pytest.fixture(scope="module")
def tiny():
    return build("tiny", torch.device("cpu"))


@pytest.mark.parametrize(("source", "enhance"), [("pixels", False), ("tokens", True)])
def test_a_measured_row_has_every_figure_and_the_columns_agree(tiny, source, enhance):
    drawn = cases(tiny.side, lambda text: len(tiny.stock.text.ids(text)))
    case = next(case for case in drawn if case.queries_per_image == 4)
    (group, *_) = case.sources
    few = replace(case, sources=(replace(group, others=group.others[:2]),), n_loop=2)
    if source == "tokens":
        few = replace(few, sources=stored(tiny, few.sources))

    row = measure(tiny, few, enhance=enhance, rounds=1)

    assert set(row) == FIELDS
    assert (row["case"], row["source"], row["enhancement"]) == ("text_to_image", source, enhance)
    figures = [value for value in row.values() if isinstance(value, float)]
    assert len(figures) == len(FIELDS) - 4
    assert all(math.isfinite(value) and value >= 0 for value in figures)
    assert row["max_abs_diff"] <= 1e-4
    assert row["flop_bound"] > 1, "what two prompts share is computed once"
    assert row["ratio"] == pytest.approx(row["pairs_per_s"] / row["loop_pairs_per_s"])
    assert row["peak_memory_mb"] > 0
