"""Scoring pairs: the packed engine against a loop over pairs and against careful batching.

Columns on the same model, prompts and pairs: `loop` is one `model(**inputs)` a pair as published,
`batched` what a careful user writes, `ours` the engine that the main job runs, and, where
sentence-transformers is installed, its CrossEncoder. Rounds alternate between the columns; each
figure is a median over rounds.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Literal, NotRequired, TypedDict

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.scoring_columns import Column, Columns, stored
from benchmarks.scoring_demo import demo_case
from benchmarks.scoring_flops import Lengths, batched_flops, flop_counter, packed_flops
from benchmarks.scoring_pairs import Case, cases
from benchmarks.scoring_promises import broken_promises
from benchmarks.scoring_setup import PRESETS, TOKENS_PER_SIDE, Model, build, demo_scorer
from nightshift.models.devices import pick_device
from nightshift.models.engine.prompts import PreparedPrompts
from nightshift.schema.distribution import installed_version
from nightshift.scoring.methods.retllm import ENHANCEMENTS

__all__ = ["Row", "measure"]

Clock = Literal["process", "wall"]


class Row(TypedDict):
    """One measured case."""

    case: str
    queries_per_image: float
    enhancement: bool
    #: Where visual tokens come from: `pixels`, or `tokens` that an earlier night stored.
    source: str
    loop_pairs_per_s: float
    batched_pairs_per_s: float
    pairs_per_s: float
    #: Ours to loop, and to batched.
    ratio: float
    ratio_batched: float
    #: FLOPs of batched / FLOPs of ours, counted.
    flop_bound: float
    max_abs_diff: float
    #: Of the process on a CPU, of tensors on a GPU; weights included.
    peak_memory_mb: float
    #: Of ours: counted FLOPs over what large matrix products reach in the same run.
    matrix_share: float
    #: Where sentence-transformers is installed, from pixels without the enhancement.
    cross_encoder_pairs_per_s: NotRequired[float]


@torch.inference_mode()
def measure(
    model: Model, case: Case, *, enhance: bool, rounds: int, cross_encoder: Column | None = None
) -> Row:
    """One row: rounds of all columns by turns.

    Args:
        model: Scores in all columns.
        case: Its pairs; their images stored ones where `source` is to be `tokens`.
        enhance: Whether images are looked at again.
        rounds: Of which each figure is a median.
        cross_encoder: The margins of the same pairs, (n,), as a fourth column.
    """
    columns = Columns(model, case, ENHANCEMENTS["default" if enhance else "off"])
    prepared = columns.all_pairs()
    from_pixels = all(image.stored is None for image in prepared.images)
    # The first round warms up, and is counted and compared instead of timed.
    (slow, careful, packed), flops = zip(
        *map(_counted, (columns.loop, columns.batched, columns.ours)), strict=True
    )
    difference = max(np.abs(packed[columns.few] - slow).max(), np.abs(packed - careful).max())
    if not enhance and not case.end_to_end:
        _check_flops(model, prepared, flops[1:], from_pixels=from_pixels)
    work: list[Callable[[], object]] = [columns.loop, columns.batched, columns.ours]
    if cross_encoder is not None:
        margins = packed[:, 0] - packed[:, 1]
        apart = np.abs(cross_encoder() - margins).max()
        # It subtracts logits in the model's precision: only in float32 are they the same numbers.
        exact = model.library.dtype == torch.float32
        assert not exact or apart < 1e-3, f"a fourth column of other prompts: {apart:.3g} apart"
        work.append(cross_encoder)
    product, product_flops = _matrix_product(model)
    work.append(product)
    seconds = [median(spent) for spent in _alternated(work, rounds, model.library.device)]
    loop_per_s = len(columns.few) / seconds[0]
    batched_per_s, per_s, *fourth = (columns.n_pairs / spent for spent in seconds[1:-1])
    row = Row(
        case=case.name,
        queries_per_image=case.queries_per_image,
        enhancement=enhance,
        source="pixels" if from_pixels else "tokens",
        loop_pairs_per_s=loop_per_s,
        batched_pairs_per_s=batched_per_s,
        pairs_per_s=per_s,
        ratio=per_s / loop_per_s,
        ratio_batched=per_s / batched_per_s,
        flop_bound=flops[1] / flops[2],
        max_abs_diff=float(difference),
        peak_memory_mb=_peak_memory_mb(model.library.device, columns.ours),
        matrix_share=(flops[2] / seconds[2]) / (product_flops / seconds[-1]),
    )
    if fourth:
        row["cross_encoder_pairs_per_s"] = fourth[0]
    return row


def _alternated(
    work: Sequence[Callable[[], object]], rounds: int, device: torch.device
) -> list[list[float]]:
    """Seconds of each piece of work in each round."""
    results: list[list[float]] = [[] for _ in work]
    for _ in range(rounds):
        for spent, entry in zip(results, work, strict=True):
            spent.append(_timed(entry, device))
    return results


def _timed(work: Callable[[], object], device: torch.device) -> float:
    now = {"process": process_time, "wall": perf_counter}[_clock(device)]
    _wait(device)
    start = now()
    work()
    _wait(device)
    return now() - start


def _clock(device: torch.device) -> Clock:
    """One CPU thread is timed by the turns it gets: on a shared machine others get some too."""
    separate = device.type == "cpu" and torch.get_num_threads() == 1
    return "process" if separate else "wall"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matrix_product(model: Model) -> tuple[Callable[[], object], int]:
    """A large matrix product in the model's precision, and its FLOPs."""
    like = model.library.lm_head.weight
    size = 8192 if like.device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=like.device, dtype=like.dtype).unbind()
    torch.mm(a, b)
    return lambda: a @ b, 2 * size**3


def _counted(column: Column) -> tuple[NDArray[np.float32], int]:
    with flop_counter() as counter:
        logits = column()
    return logits, counter.get_total_flops()


def _check_flops(
    model: Model, prepared: PreparedPrompts, counted: Sequence[int], *, from_pixels: bool
) -> None:
    """Requires that torch counts what the formulas say; otherwise the bound means nothing."""
    first = prepared.groups[0]
    assert len({len(prompt.ids) for prompt in prepared.prompts}) == 1
    assert {image.n_tokens for image in prepared.images} == {TOKENS_PER_SIDE**2}
    lengths = Lengths(
        n_groups=len(prepared.groups),
        n_pairs=prepared.n_suffixes,
        prefix=len(first.prefix.ids),
        suffix=len(first.suffixes[0].ids),
        n_images=len(prepared.images) if from_pixels else 0,
        side=TOKENS_PER_SIDE,
    )
    by_hand = [count(model.library.config, lengths) for count in (batched_flops, packed_flops)]
    assert np.allclose(counted, by_hand, rtol=0.01), (counted, by_hand)


def _peak_memory_mb(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) / 1e6
    # Linux: 5 resets the high-water mark of resident memory.
    Path("/proc/self/clear_refs").write_text("5")
    work()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _provenance(model: Model) -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    device = model.library.device
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    packages = ["torch", "transformers", "numpy"]
    if _has_cross_encoder():
        packages.append("sentence-transformers")
    return {
        "commit": commit,
        "device": name,
        "threads": torch.get_num_threads(),
        "clock": _clock(device),
        "precision": str(model.library.dtype).removeprefix("torch."),
        "versions": {
            "nightshift": installed_version(),
            **{name: version(name) for name in packages},
        },
    }


def _has_cross_encoder() -> bool:
    return find_spec("sentence_transformers") is not None


def _rows(model: Model, cases: Sequence[Case], rounds: int, folder: Path) -> Iterator[Row]:
    """Every case from pixels and from tokens, with the enhancement off and on."""
    peer = None
    if _has_cross_encoder():
        from benchmarks.scoring_cross_encoder import CrossEncoderColumn  # noqa: PLC0415 - an extra

        peer = CrossEncoderColumn(model, folder)
    for enhance in (False, True):
        for case in cases:
            fourth = peer.of(case) if peer is not None and not enhance else None
            yield measure(model, case, enhance=enhance, rounds=rounds, cross_encoder=fourth)
            later = replace(case, sources=stored(model, case.sources))
            yield measure(model, later, enhance=enhance, rounds=rounds)


@click.command()
@click.option("--device", default="auto", show_default=True)
@click.option("--preset", type=click.Choice(PRESETS), default="tiny", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as a list.")
@click.option("--keep", type=click.Path(path_type=Path), help="Add them to this file of results.")
def main(device: str, preset: str, rounds: int, as_json: bool, keep: Path | None) -> None:
    """Score the same pairs in each way and compare; exits with 1 where ours is too slow.

    The demo's pairs are scored with its own weights, which have the shape of `tiny`.
    """
    chosen = pick_device(device)
    # Read first: a file that is none must not cost a whole run.
    kept = json.loads(keep.read_text()) if keep is not None and keep.exists() else {}
    model = build(preset, chosen)
    rows: list[Row] = []

    def add(name: str, scored: Model, cases: Iterator[Row]) -> None:
        of_model: list[Row] = []
        for row in cases:
            rows.append(row)
            of_model.append(row)
            if keep is not None:
                # Row by row: a run that is cut off keeps what it has measured.
                kept[name] = {**_provenance(scored), "rounds": rounds, "rows": of_model}
                keep.write_text(json.dumps(kept, indent=1) + "\n")
            if not as_json:
                print("  ".join(f"{name}={_short(value)}" for name, value in row.items()))

    with TemporaryDirectory() as folder:
        drawn = cases(model.side, lambda text: len(model.stock.text.ids(text)))
        add(preset, model, _rows(model, drawn, rounds, Path(folder) / "drawn"))
        if preset == "tiny":
            case, scorer = demo_case(Path(folder) / "pictures", chosen), demo_scorer(chosen)
            add("demo", scorer, _rows(scorer, [case], rounds, Path(folder) / "demo"))
    if as_json:
        print(json.dumps(rows, indent=1))
    broken = broken_promises(rows, preset, on_cpu=chosen.type == "cpu")
    for line in broken:
        print(line, file=sys.stderr)
    if broken:
        raise SystemExit(1)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
