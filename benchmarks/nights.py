"""Nights on a catalogue that moves: what each costs, as a share of the first night."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from sqlalchemy import text

from benchmarks.cpu_meter import CpuMeter
from benchmarks.nights_catalogue import MovingCatalogue
from nightshift import api
from nightshift.cli.embedded_stack import open_stack
from nightshift.demo import coarse_dir, scorer_dir
from nightshift.producers.import_limits import ImportLimits
from nightshift.schema.states import RunState

_STAGES = ("import", "index", "search", "plan", "score", "rank")
_POLL_S = 0.05
#: Scores of two computations of the same pairs in other batches differ by less.
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The options of the command that say how large the nights are."""

    items: int
    queries: int
    top_k: int
    change: float
    nights: int


@click.command()
@click.option("--items", default=20_000, show_default=True)
@click.option("--queries", default=200, show_default=True)
@click.option("--top-k", default=20, show_default=True)
@click.option("--change", default=0.01, show_default=True, help="Share that is new or changed.")
@click.option("--nights", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(items: int, queries: int, top_k: int, change: float, nights: int, as_json: bool) -> None:
    """Import, index and re-rank a catalogue night after night; then all of it, afresh.

    CPU seconds are those of all processes: services, dispatcher, worker and this one. Half as many
    items as are new or changed are removed each night.
    """
    size = Size(items=items, queries=queries, top_k=top_k, change=change, nights=nights)
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        catalogue = MovingCatalogue(folder=folder)
        rows, kept = _on_a_stack(folder / "moving", catalogue, size, nights=nights)
        # What an empty system makes of the last night's items.
        _, fresh = _on_a_stack(folder / "fresh", catalogue, size, nights=1, as_it_is=True)
    facts = {
        **vars_of(size),
        "nights": rows,
        "share_of_first": _shares(rows),
        "equal_to_fresh": _are_equal(kept, fresh),
    }
    if as_json:
        print(json.dumps(facts))
        return
    for row in rows:
        spent = " ".join(f"{stage} {row['cpu_s'][stage]:.1f}" for stage in _STAGES)
        print(
            f"night {row['night']}: {row['changed']} changed, CPU s {spent}, "
            f"{row['db_mb_added']} MB, {row['reused']} reused, {row['scored']} scored"
        )
    print(f"share of the first night: {facts['share_of_first']}")
    print(f"equal to a fresh catalogue: {facts['equal_to_fresh']}")


def vars_of(size: Size) -> dict[str, float]:
    """The options by name."""
    return {name: getattr(size, name) for name in ("items", "queries", "top_k", "change")}


def _on_a_stack(
    data_dir: Path, catalogue: MovingCatalogue, size: Size, *, nights: int, as_it_is: bool = False
) -> tuple[list[dict[str, Any]], dict[str, list[tuple[str, float]]]]:
    """Do some nights on a stack of their own; the measurements, and the last night's lists."""
    data_dir.mkdir()
    data_dir.chmod(0o711)
    stack = open_stack(data_dir)
    rows: list[dict[str, Any]] = []
    try:
        stack.up(1)
        queries = catalogue.write_queries(data_dir / "queries.jsonl", size.queries)
        with api.connect(data_dir) as ns:
            do = _Night(ns, CpuMeter(stack), queries, size)
            for night in range(1, nights + 1):
                changed = size.items
                if not as_it_is:
                    changed = (
                        catalogue.begin(size.items) if night == 1 else catalogue.change(size.change)
                    )
                rows.append({"night": night, "changed": changed, **do.do_night(catalogue.source)})
            lists = do.lists()
    finally:
        stack.down()
    return rows, lists


class _Night:
    """One night after another on the same catalogue."""

    def __init__(self, ns: api.Nightshift, meter: CpuMeter, queries: Path, size: Size) -> None:
        self._ns = ns
        self._meter = meter
        self._queries = queries
        self._size = size
        self._run_id = 0
        self._cpu_s = dict.fromkeys(_STAGES, 0.0)

    def do_night(self, source: Path) -> dict[str, Any]:
        """Import, index and re-rank; CPU seconds by stage, and what the database grew by."""
        self._cpu_s = dict.fromkeys(_STAGES, 0.0)
        before_mb = self._database_mb()
        started = self._meter.seconds()
        summary = self._ns.import_catalog("moving", str(source), limits=ImportLimits(prune=True))
        assert not summary.refused, summary.message
        assert summary.failed == 0, summary
        self._cpu_s["import"] = self._meter.seconds() - started
        embedder = f"open_clip:{coarse_dir()}"
        request = api.IndexRequest(catalog="moving", embedder=embedder, parts="text,image")
        self._watch(self._ns.build_index(request).run_id, index=True)
        planned = self._ns.rerank(
            api.RerankRequest(
                catalog="moving",
                queries=str(self._queries),
                scorer=f"hf:{scorer_dir()}",
                top_k=self._size.top_k,
                query_parts="text",
                item_parts="text,image",
            )
        )
        self._run_id = planned.run_id
        self._watch(planned.run_id)
        plan = self._plan()
        return {
            "cpu_s": {stage: round(seconds, 2) for stage, seconds in self._cpu_s.items()},
            "db_mb_added": round(self._database_mb() - before_mb, 1),
            "reused": int(plan.get("reused") or 0),
            "scored": int(plan.get("to_score") or 0),
        }

    def lists(self) -> dict[str, list[tuple[str, float]]]:
        """The last run's items with their scores, best first, by query."""
        lists: dict[str, list[tuple[str, float]]] = {}
        for row in self._ns.results(self._run_id):
            lists.setdefault(row.query, []).append((row.item, row.margin or 0.0))
        return lists

    def _watch(self, run_id: int, *, index: bool = False) -> None:
        """Wait for a run, and charge CPU seconds to the stage that spends them."""
        last = self._meter.seconds()
        while True:
            state, stage, working = self._stage_of(run_id)
            time.sleep(_POLL_S)
            now = self._meter.seconds()
            if index:
                stage = "index"
            elif not working:
                stage = "rank" if stage == "rank" else "plan"
            elif stage == "embed":
                stage = "index"
            self._cpu_s[stage] += now - last
            last = now
            if state == RunState.DONE:
                return
            assert state == RunState.RUNNING, f"run {run_id} is {state}"

    def _stage_of(self, run_id: int) -> tuple[str, str, bool]:
        with self._ns.database.begin() as connection:
            row = connection.execute(_STAGE_OF_RUN, {"run": run_id}).one()
        return row.state, row.stage, row.working

    def _plan(self) -> dict[str, Any]:
        with self._ns.database.begin() as connection:
            return dict(connection.execute(_PLAN_OF_RUN, {"run": self._run_id}).scalar_one())

    def _database_mb(self) -> float:
        with self._ns.database.begin() as connection:
            return float(connection.execute(_DATABASE_BYTES).scalar_one()) / 1e6


# The stage of a run, and whether a job of it is unfinished.
_STAGE_OF_RUN = text("""
    SELECT state, stage, EXISTS (SELECT FROM job WHERE run_id = run.id AND job.stage = run.stage
        AND job.state IN ('queued', 'running')) AS working
    FROM run WHERE id = :run
""")

# The counts that planning found.
_PLAN_OF_RUN = text("SELECT plan FROM run WHERE id = :run")

# Bytes of the database on disk.
_DATABASE_BYTES = text("SELECT pg_database_size(current_database())")


def _shares(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of the later nights over the first, by stage, and of the bytes added."""
    first, later = rows[0], rows[1:]
    if not later:
        return {}
    shares = {
        stage: sum(row["cpu_s"][stage] for row in later) / len(later) / first["cpu_s"][stage]
        for stage in _STAGES
        if first["cpu_s"][stage]
    }
    added = sum(row["db_mb_added"] for row in later) / len(later)
    shares["db"] = added / first["db_mb_added"]
    return {name: round(share, 4) for name, share in shares.items()}


def _are_equal(
    kept: dict[str, list[tuple[str, float]]], fresh: dict[str, list[tuple[str, float]]]
) -> bool:
    """True if two systems give the same lists: scores to 1e-5, and order outside that."""
    if kept.keys() != fresh.keys():
        return False
    for query, mine in kept.items():
        theirs = fresh[query]
        scores = dict(theirs)
        if len(mine) != len(theirs) or dict(mine).keys() != scores.keys():
            return False
        for (item, score), (_, score_there) in zip(mine, theirs, strict=True):
            close_to_place = abs(score - score_there) <= 2 * _TOLERANCE
            if abs(score - scores[item]) > _TOLERANCE or not close_to_place:
                return False
    return True


if __name__ == "__main__":
    main()
