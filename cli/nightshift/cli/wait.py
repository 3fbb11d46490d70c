"""Waiting for a run to end, with a live view of its stages on stderr."""

from math import inf
from time import monotonic, sleep

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from nightshift.cli.formats import format_duration, format_rate
from nightshift.results.runs import RunProgress, StageProgress, progress
from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.states import RunState
from nightshift.stores.postgres.database import Database

__all__ = ["wait_for_run"]

_POLL_S = 0.3
#: A stack that has just been started needs some seconds to load its first worker.
_PATIENCE_S = 20.0
#: A restart of Postgres, which first reads its log again.
_OUTAGE_S = 120.0


def wait_for_run(database: Database, run_id: int, *, quiet: bool = False) -> RunState:
    """Block until a run is done, failed or cancelled.

    Args:
        database: Postgres.
        run_id: The run.
        quiet: Show no progress.

    Returns:
        How it ended.

    Raises:
        NotFoundError: Where there is no such run.
        ServiceUnavailableError: When Postgres stays away; the run goes on once it is back.
    """
    give_up_at = monotonic() + _OUTAGE_S
    with _View(quiet=quiet) as view:
        while True:
            try:
                current = progress(database, run_id)
            except ServiceUnavailableError:
                if monotonic() > give_up_at:
                    raise
                sleep(_POLL_S)
                continue
            give_up_at = monotonic() + _OUTAGE_S
            view.show(current)
            if current.ended:
                return current.run.state
            sleep(_POLL_S)


class _View:
    """One line a stage: bar, units, throughput, time left."""

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
        self._warn_at = monotonic() + _PATIENCE_S

    def __enter__(self) -> "_View":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, current: RunProgress) -> None:
        """Bring the lines up to date."""
        if current.workers_alive:
            self._warn_at = monotonic() + _PATIENCE_S
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
    return (
        f"{format_duration(stage.left_s)} left{failed}"
        if stage.left_s is not None
        else f"…{failed}"
    )
