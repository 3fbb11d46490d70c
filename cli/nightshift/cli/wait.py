"""A live view of the stages of a run, on stderr."""

from math import inf
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from nightshift.cli.formats import format_duration, format_rate
from nightshift.results.runs import RunProgress, StageProgress
from nightshift.schema.states import RunState

__all__ = ["ProgressView"]

#: Seconds that a stack which has just been started needs to load its first worker.
_FIRST_WORKER_S = 20.0


class ProgressView:
    """One line a stage: bar, units, throughput, time left.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>7}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>10}"),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True, highlight=False),
            disable=quiet,
        )
        self._lines: dict[str, TaskID] = {}
        self._warn_at = monotonic() + _FIRST_WORKER_S

    def __enter__(self) -> "ProgressView":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, current: RunProgress) -> None:
        """Bring the lines up to date."""
        if current.workers_alive:
            self._warn_at = monotonic() + _FIRST_WORKER_S
        elif monotonic() > self._warn_at:
            self._warn_at = inf
            self._progress.console.print(
                "no worker is alive, so nothing moves: `nightshift up` or `nightshift worker`"
            )
        for stage in current.stages:
            if stage.stage not in self._lines:
                self._lines[stage.stage] = self._progress.add_task(
                    stage.stage, total=None, rate="", left=""
                )
            self._progress.update(
                self._lines[stage.stage],
                total=stage.units if stage.jobs else (0 if stage.state == "done" else None),
                completed=stage.units_done,
                rate=format_rate(stage.units_per_s) if stage.units_done else "",
                left=_note(current, stage),
            )


def _note(current: RunProgress, stage: StageProgress) -> str:
    failed = f", {stage.units_failed:,} failed" if stage.units_failed else ""
    if stage.state != "running" or current.ended:
        return stage.state + failed
    if current.run.state is RunState.PAUSED:
        return "paused" + failed
    if stage.left_s is None:
        return f"…{failed}"
    return f"{format_duration(stage.left_s)} left{failed}"
