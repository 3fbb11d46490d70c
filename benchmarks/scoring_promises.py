"""For `benchmarks.scoring`: what its rows have to reach."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["broken_promises"]

#: Ours to loop, by queries an image: preset tiny on a CPU, text to image.
_TO_LOOP = {16: 10.0, 64: 20.0}
#: Of the bound that counted FLOPs set to the ratio to batched.
_OF_BOUND = 0.7
_FLOAT32_DIFFERENCE = 1e-4
#: Preset 7b on a GPU, text to image, 16 queries an image: ours to loop; of the matrix rate.
_GPU_TO_LOOP, _GPU_MATRIX_SHARE = 8.0, 0.45


def broken_promises(rows: Sequence[Mapping[str, Any]], preset: str, *, on_cpu: bool) -> list[str]:
    """One line a promise that a row does not keep.

    Args:
        rows: As the benchmark prints them.
        preset: Of the model.
        on_cpu: Whether in float32 on a CPU; a GPU computes in bfloat16.
    """
    return [
        f"{row['case']}, {row['queries_per_image']} queries an image, {row['source']}, "
        f"enhancement {'on' if row['enhancement'] else 'off'}: {what} is {row[what]:.3g}, "
        f"not {limit:.3g}"
        for row in rows
        for what, limit, kept in _promises(row, preset, on_cpu=on_cpu)
        if not kept
    ]


def _promises(
    row: Mapping[str, Any], preset: str, *, on_cpu: bool
) -> Iterator[tuple[str, float, bool]]:
    """The measured quantity, its limit, and whether the limit is kept."""

    def at_least(what: str, limit: float) -> tuple[str, float, bool]:
        return what, limit, row[what] >= limit

    yield at_least("ratio", 1.0)
    yield at_least("ratio_batched", 0.95)
    if on_cpu:
        yield "max_abs_diff", _FLOAT32_DIFFERENCE, row["max_abs_diff"] <= _FLOAT32_DIFFERENCE
    if row["case"] != "text_to_image" or row["source"] != "pixels":
        return
    n_queries = row["queries_per_image"]
    if not on_cpu:
        if preset == "7b" and n_queries == 16 and not row["enhancement"]:
            yield at_least("ratio", _GPU_TO_LOOP)
            yield at_least("matrix_share", _GPU_MATRIX_SHARE)
        return
    # With the enhancement on, half of it.
    share = 0.5 if row["enhancement"] else 1.0
    if preset == "tiny" and n_queries in _TO_LOOP:
        yield at_least("ratio", share * _TO_LOOP[n_queries])
    if preset in {"tiny", "small"}:
        yield at_least("ratio_batched", share * _OF_BOUND * row["flop_bound"])
