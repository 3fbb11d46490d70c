"""Scoring pairs: the packed engine against a loop over pairs and against careful batching.

Three columns on the same model, prompts and pairs, tokenised beforehand: `loop` is one
`model(**inputs)` a pair as published, `batched` what a careful user writes, `ours` the engine that
the main job runs. Rounds alternate between the columns; each figure is a median over rounds.
"""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Literal

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from benchmarks.scoring_flops import Lengths, batched_flops, packed_flops
from benchmarks.scoring_setup import PIXELS, PRESETS, Case, build, cases
from nightshift.models.engine.enhancement import enhanced
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.packed import PackedEngine
from nightshift.models.engine.prompts import Prepared, Prompt
from nightshift.models.load import pick_device
from nightshift.models.pairs import PairScorer
from nightshift.schema.runs import EnhancementParams
from nightshift.scoring.methods.registry import framing
from nightshift.scoring.methods.retllm import ENHANCEMENTS

_BATCH = 16
# A loop's rate does not depend on how many pairs it walks through.
_LOOP_PAIRS = 4
_RULE = framing("retllm")

Clock = Literal["process", "wall"]
#: Logits of both labels, (n, 2), of the prompts given.
Column = Callable[[list[Prompt]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured case."""

    case: str
    queries_per_image: int
    enhancement: bool
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


class Bench:
    """One model and the three ways to score with it."""

    def __init__(self, preset: str, device: torch.device) -> None:
        self.device = device
        self.model, self.stock, self.family = build(preset, device)
        assert self.family.steps is not None
        limits = PixelLimits(min_pixels=PIXELS**2, max_pixels=PIXELS**2)
        self.engine = PackedEngine(self.family, self.family.steps, limits)
        text = self.family.text
        self.labels = [text.label(_RULE.labels.positive), text.label(_RULE.labels.negative)]

    def prepare(self, case: Case) -> Prepared:
        """The case's prompts; all of one length, so that no column pads."""
        method = PairScorer(self.engine, (_RULE,), ENHANCEMENTS["off"], "benchmark")
        prepared = method.prepare(case.groups).groups  # type: ignore[attr-defined]
        assert len({len(prompt.ids) for prompt in prepared.prompts}) == 1
        return prepared

    def loop(self, prepared: Prepared, enhancement: EnhancementParams) -> Column:
        """One forward a pair: full-vocabulary logits everywhere, the vision tower each time."""

        def run(prompts: list[Prompt]) -> NDArray[np.float32]:
            found = []
            for prompt in prompts:
                shown = [prepared.pictures[i] for i in prompt.pictures]
                if enhancement.trigger == "never":
                    pixels = torch.cat([one.pixels for one in shown]).to(self.device)
                    logits = self.model(**self._inputs(prepared, [prompt]), pixel_values=pixels)
                else:
                    # The enhancement needs the visual tokens: the same call as the model's own.
                    seen = [one.tokens for one in self.stock.see(shown)]
                    logits = self._forward(prepared, [prompt], [seen], enhancement, keep=0)
                found.append(self._labels(logits.logits))
            return np.concatenate(found)

        return run

    def batched(self, prepared: Prepared, enhancement: EnhancementParams) -> Column:
        """Batches of 16, logits at the end only, the vision tower once a distinct picture."""

        def run(prompts: list[Prompt]) -> NDArray[np.float32]:
            seen = self.stock.see(prepared.pictures)
            found = []
            for start in range(0, len(prompts), _BATCH):
                batch = prompts[start : start + _BATCH]
                shown = [[seen[i].tokens for i in prompt.pictures] for prompt in batch]
                output = self._forward(prepared, batch, shown, enhancement, keep=1)
                found.append(self._labels(output.logits))
            return np.concatenate(found)

        return run

    def ours(self, prepared: Prepared, enhancement: EnhancementParams) -> Column:
        """The engine."""

        def run(_prompts: list[Prompt]) -> NDArray[np.float32]:
            found = self.engine.score(prepared, labels=_RULE.labels, enhancement=enhancement)
            return np.stack([reading.label_logits for group in found for reading in group])

        return run

    def matrix_rate(self) -> float:
        """FLOPs a second of large matrix products in the model's precision."""
        a, b = torch.randn(2, 2048, 2048, device=self.device, dtype=self.model.dtype).unbind()
        seconds = [self.timed(lambda: a @ b) for _ in range(7)]
        return 2 * 2048**3 / median(seconds)

    @property
    def clock(self) -> Clock:
        """One CPU thread is timed by the turns it gets: on a shared machine others get some too."""
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        return "process" if alone else "wall"

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds that some work takes."""
        now = {"process": process_time, "wall": perf_counter}[self.clock]
        self._wait()
        start = now()
        work()
        self._wait()
        return now() - start

    def _forward(
        self,
        prepared: Prepared,
        batch: list[Prompt],
        shown: list[list[torch.Tensor]],
        enhancement: EnhancementParams,
        *,
        keep: int,
    ) -> CausalLMOutputWithPast:
        features = tuple(tokens for one in shown for tokens in one)
        memories = [torch.cat(one) for one in shown]
        lengths = [len(prompt.ids) for prompt in batch]
        with enhanced(self.stock.decoder, enhancement, memories, lengths):
            return self.model(
                **self._inputs(prepared, batch),
                mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
                logits_to_keep=keep,
            )

    def _inputs(self, prepared: Prepared, batch: list[Prompt]) -> dict[str, torch.Tensor]:
        ids = torch.stack([prompt.ids for prompt in batch])
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": self.family.is_visual(ids).int(),
            "image_grid_thw": torch.tensor(
                [prepared.pictures[i].grid for prompt in batch for i in prompt.pictures]
            ),
        }
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def _labels(self, logits: torch.Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = logits[:, -1, self.labels].float().cpu().numpy()
        return found

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@torch.inference_mode()
def measure(bench: Bench, case: Case, *, enhance: bool, rounds: int) -> Row:
    """One row: rounds of loop, batched and ours by turns."""
    enhancement = ENHANCEMENTS["default" if enhance else "off"]
    prepared = bench.prepare(case)
    prompts = prepared.prompts
    # Evenly spread over the groups.
    few = list(range(0, len(prompts), max(1, len(prompts) // _LOOP_PAIRS)))
    columns = [
        (bench.loop(prepared, enhancement), [prompts[i] for i in few]),
        (bench.batched(prepared, enhancement), prompts),
        (bench.ours(prepared, enhancement), prompts),
    ]
    # The first round warms up, and is counted and compared instead of timed.
    (slow, careful, packed), flops = zip(
        *(_counted(column, some) for column, some in columns), strict=True
    )
    difference = max(np.abs(packed[few] - slow).max(), np.abs(packed - careful).max())
    if not enhance:
        _check_flops(bench, prepared, flops[1:])
    rate = bench.matrix_rate()
    seconds: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        for spent, (column, some) in zip(seconds, columns, strict=True):
            spent.append(bench.timed(lambda c=column, s=some: c(s)))
    per_s = [len(some) / median(spent) for spent, (_, some) in zip(seconds, columns, strict=True)]
    return Row(
        case=case.name,
        queries_per_image=case.queries_per_image,
        enhancement=enhance,
        source="pixels",
        loop_pairs_per_s=per_s[0],
        batched_pairs_per_s=per_s[1],
        pairs_per_s=per_s[2],
        ratio=per_s[2] / per_s[0],
        ratio_batched=per_s[2] / per_s[1],
        flop_bound=flops[1] / flops[2],
        max_abs_diff=float(difference),
        peak_memory_mb=_peak_memory_mb(bench, lambda: columns[2][0](prompts)),
        matrix_share=flops[2] / median(seconds[2]) / rate,
    )


def _counted(column: Column, prompts: list[Prompt]) -> tuple[NDArray[np.float32], int]:
    with FlopCounterMode(display=False) as counter:
        logits = column(prompts)
    return logits, counter.get_total_flops()


def _check_flops(bench: Bench, prepared: Prepared, counted: Sequence[int]) -> None:
    """What torch counts must be what the formulas say, or the bound means nothing."""
    (first, *_), time = prepared.groups, prepared.pictures[0].grid
    lengths = Lengths(
        n_groups=len(prepared.groups),
        n_pairs=prepared.n_suffixes,
        prefix=len(first.prefix.ids),
        suffix=len(first.suffixes[0].ids),
        n_pictures=len(prepared.pictures),
        patches=time[0] * time[1] * time[2],
    )
    by_hand = [count(bench.model.config, lengths) for count in (batched_flops, packed_flops)]
    assert np.allclose(counted, by_hand, rtol=0.01), (counted, by_hand)


def _peak_memory_mb(bench: Bench, work: Callable[[], object]) -> float:
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
        work()
        return torch.cuda.max_memory_allocated(bench.device) / 1e6
    # Linux: 5 resets the high-water mark of resident memory.
    Path("/proc/self/clear_refs").write_text("5")
    work()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _provenance(bench: Bench) -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    name = platform.processor() or platform.machine()
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name(bench.device)
    return {
        "commit": commit,
        "device": name,
        "threads": torch.get_num_threads(),
        "clock": bench.clock,
        "precision": str(bench.model.dtype).removeprefix("torch."),
        "versions": {one: version(one) for one in ("nightshift", "torch", "transformers", "numpy")},
    }


@click.command()
@click.option("--device", default="auto", show_default=True)
@click.option("--preset", type=click.Choice(PRESETS), default="tiny", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as a list.")
@click.option("--keep", type=click.Path(path_type=Path), help="Add them to this file of results.")
def main(device: str, preset: str, rounds: int, as_json: bool, keep: Path | None) -> None:
    """Score the same pairs in three ways and compare."""
    bench = Bench(preset, pick_device(device))
    rows = []
    for enhance in (False, True):
        for case in cases(lambda text: len(bench.family.text.ids(text))):
            row = asdict(measure(bench, case, enhance=enhance, rounds=rounds))
            rows.append(row)
            if not as_json:
                print("  ".join(f"{name}={_short(value)}" for name, value in row.items()))
    if as_json:
        print(json.dumps(rows, indent=1))
    if keep is not None:
        kept = json.loads(keep.read_text()) if keep.exists() else {}
        kept[preset] = {**_provenance(bench), "rounds": rounds, "rows": rows}
        keep.write_text(json.dumps(kept, indent=1) + "\n")


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
