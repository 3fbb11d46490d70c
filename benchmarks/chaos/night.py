"""One night on an embedded stack of its own: index a drawn catalogue, see it, re-rank it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from benchmarks.chaos.compare import Results, read_results
from nightshift import api
from nightshift.cli.embedded_stack import open_stack
from nightshift.demo import coarse_dir, scorer_dir, write_catalogue
from nightshift.schema.states import RunState
from nightshift.stack.faults import FaultTarget
from nightshift.stores.ledger import runs
from nightshift.stores.postgres.database import Database

__all__ = ["Night", "Size", "may_mount", "spend_night"]

#: Of the file system of the token store; those of a night take a few megabytes.
_DISK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Amount of work of a run."""

    items: int
    queries: int
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """Outcome of a run."""

    results: Results
    #: Of all its jobs.
    slowest_job_s: float


def spend_night(
    size: Size,
    seed: int,
    *,
    workers: int,
    lease_s: float,
    disturb: Callable[[FaultTarget], None],
) -> Night:
    """Spend one night and read what it left; the data directory is then gone.

    Args:
        size: Of the catalogue and the run.
        seed: Of the catalogue.
        workers: How many.
        lease_s: Of a job.
        disturb: Called with each run once it is planned; returns when the run has ended.

    Raises:
        RuntimeError: When a run did not end well; the logs are kept then.
    """
    os.environ["NIGHTSHIFT_LEASE_S"] = str(lease_s)  # the workers inherit it
    folder = Path(tempfile.mkdtemp(prefix="ns-chaos-"))
    folder.chmod(0o711)  # Postgres may run as another user
    stack = open_stack(folder / "data")
    tokens = folder / "tokens"
    mounted = _mount_small_disk(tokens)
    try:
        stack.up(workers)
        write_catalogue(folder / "scenes", seed, items=size.items, queries=size.queries)
        with api.connect(folder / "data") as ns:
            database = ns.database

            def finish(run_id: int) -> None:
                disturb(FaultTarget(stack=stack, database=database, run_id=run_id, lease_s=lease_s))
                with database.begin() as connection:
                    state = runs.get_run(connection, run_id).state
                if state is not RunState.DONE:
                    kept = shutil.copytree(stack.data_dir / "logs", f"{folder}-logs")
                    raise RuntimeError(f"run {run_id} ended {state.value}; see {kept}")

            finish(_plan_index(ns, folder / "scenes"))
            finish(_plan_tokens(ns, tokens))
            rerank_run = _plan_rerank(ns, folder / "scenes", size.top_k)
            finish(rerank_run)
            return Night(
                results=read_results(database, rerank_run),
                slowest_job_s=_slowest_job_s(database),
            )
    finally:
        stack.down(grace_s=1.0)
        if mounted:
            _unmount(tokens)
        shutil.rmtree(folder, ignore_errors=True)


def may_mount() -> bool:
    """Tells whether the token store can have a file system of its own, for a fault to fill."""
    with tempfile.TemporaryDirectory(prefix="ns-chaos-") as folder:
        mounted = _mount_small_disk(Path(folder) / "disk")
        if mounted:
            _unmount(Path(folder) / "disk")
    return mounted


def _mount_small_disk(folder: Path) -> bool:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", folder]
    return subprocess.run(mount, check=False, capture_output=True).returncode == 0


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


def _slowest_job_s(database: Database) -> float:
    with database.begin() as connection:
        slowest = connection.execute(
            text("SELECT max(extract(epoch FROM finished_at - started_at)) FROM job")
        )
        return float(slowest.scalar_one())


def _plan_index(ns: api.Nightshift, scenes: Path) -> int:
    ns.import_catalog("scenes", str(scenes / "items.jsonl"))
    embedder = f"open_clip:{coarse_dir()}"
    request = api.IndexRequest(catalog="scenes", embedder=embedder, parts="image")
    return ns.build_index(request).run_id


def _plan_tokens(ns: api.Nightshift, store: Path) -> int:
    scorer = f"hf:{scorer_dir()}"
    return ns.build_tokens(
        api.TokenRequest(catalog="scenes", scorer=scorer, store=str(store))
    ).run_id


def _plan_rerank(ns: api.Nightshift, scenes: Path, top_k: int) -> int:
    request = api.RerankRequest(
        catalog="scenes",
        queries=str(scenes / "queries-text.jsonl"),
        scorer=f"hf:{scorer_dir()}",
        top_k=top_k,
        query_parts="text",
        item_parts="image",
    )
    return ns.rerank(request).run_id
