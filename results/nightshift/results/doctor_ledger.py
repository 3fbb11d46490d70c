"""Checks of the ledger, the last runs and model loads for `nightshift doctor`."""

from collections.abc import Iterator

from nightshift.results.verify import verify
from nightshift.schema.findings import Finding
from nightshift.schema.states import RunState
from nightshift.stores import health
from nightshift.stores.ledger import runs, workers
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import model_loads

__all__ = ["check_ledger", "check_model_loads", "check_runs"]

#: How many of the newest runs are verified.
_MAX_RUNS = 5


def check_ledger(database: Database) -> Iterator[Finding]:
    """Check that a dispatcher and a worker are alive and that no job is stuck."""
    with database.begin() as connection:
        active = runs.active_runs(connection)
        alive = workers.count_alive(connection)
        elected = health.dispatcher_is_elected(connection)
        stuck = health.count_stuck_jobs(connection)
    waiting = bool(active)
    if not elected:
        yield Finding(
            check="ledger",
            level="error" if waiting else "warning",
            message="no dispatcher runs: `nightshift up` or `nightshift dispatcher`",
        )
    if not alive:
        yield Finding(
            check="ledger",
            level="error" if waiting else "warning",
            message="no worker is alive: `nightshift up` or `nightshift worker`",
        )
    if stuck:
        yield Finding(
            check="ledger",
            level="error",
            message=f"{stuck} jobs have lost their worker and are not queued again: see the "
            "dispatcher's log",
        )
    yield Finding(
        check="ledger",
        level="ok",
        message=f"{len(active)} runs under way, {alive} workers alive",
    )


def check_runs(database: Database) -> Iterator[Finding]:
    """Verify the receipts of the newest runs."""
    with database.begin() as connection:
        done = [run for run in runs.list_runs(connection, _MAX_RUNS) if run.state is RunState.DONE]
    for run in done:
        if not verify(database, run.id).complete:
            yield Finding(
                check="runs",
                level="error",
                message=f"run {run.id} is done but its counts do not add up: "
                f"`nightshift verify {run.id}`",
            )
    yield Finding(check="runs", level="ok", message=f"{len(done)} finished runs were verified")


def check_model_loads(database: Database) -> Iterator[Finding]:
    """List results of models whose files changed while a worker had them in memory."""
    with database.begin() as connection:
        suspect = model_loads.suspect_loads(connection)
    for load in suspect:
        yield Finding(
            check="loads",
            level="warning",
            message=f"{load.changed_file} changed while {load.worker_id} had {load.spec} in "
            f"memory. {load.kept.text()} of this load were kept before, each after a check of its "
            f"files; if you doubt them, `nightshift doctor --drop-load {load.id}` deletes them",
        )
