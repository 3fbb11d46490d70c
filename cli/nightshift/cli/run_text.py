"""Tables and text about runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from nightshift.cli.console import make_table
from nightshift.cli.formats import format_duration, format_number, format_rate
from nightshift.results.run_json import plan_json
from nightshift.results.runs import RunDetails, RunProgress, StageProgress
from nightshift.schema.display import visible
from nightshift.schema.states import RunState
from nightshift.stores.failures import FailureCount, FailureRow
from nightshift.stores.ledger.run_types import AnyRun, IndexedRun, IndexRun, TokenRun
from nightshift.stores.models import ModelRow

__all__ = ["failures_table", "print_details", "runs_table", "stages_table"]


def runs_table(runs: Iterable[RunProgress]) -> Table:
    """A table with one row per run."""
    table = make_table(
        "run", "state", "what", "stage", "progress", "rate", "left", "failed", "begun",
        right="run progress rate left failed",
    )  # fmt: skip
    for progress in runs:
        run = progress.run
        # A stage without jobs, such as `embed` of a re-ranking run, has no line of its own.
        stage = next((stage for stage in progress.stages if stage.stage is run.stage), None)
        failed = sum(each.units_failed for each in progress.stages)
        table.add_row(
            str(run.id),
            run.state,
            _what(run),
            # For a failed or cancelled run, the stage at which it stopped.
            "" if run.state is RunState.DONE else run.stage,
            *_pace(None if run.state is RunState.DONE else stage, ended=progress.ended),
            f"{failed:,}" if failed else "",
            _moment(run.created_at),
        )
    return table


def print_details(console: Console, details: RunDetails) -> None:
    """Print the output of `nightshift run show`."""
    run = details.progress.run
    ended = f", ended {_moment(run.finished_at)}" if run.finished_at else ""
    console.print(f"Run {run.id} is {run.state}: {visible(_what(run))}", style="bold")
    console.print(
        f"begun {_moment(run.created_at)}{ended}, priority {run.priority}, "
        f"revision {run.revision} of the catalogue"
    )
    if details.coverage is not None and not details.coverage.complete:
        console.print(str(details.coverage), style="yellow")
    if not_indexed := getattr(run.plan, "not_indexed", None):
        console.print(
            f"{not_indexed:,} items of revision {run.revision} were not in the index and could not "
            "be found: `rerank --build-index` embeds them first",
            style="yellow",
        )
    if not details.progress.ended and not details.progress.workers_alive:
        console.print("No worker is alive: `nightshift up` or `nightshift worker`", style="yellow")
    console.print()
    console.print(stages_table(details.progress.stages))
    console.print(_facts_table("Plan", _plan(details)))
    if details.failures:
        console.print(_counts_table(details.failures))
        console.print(f"List them all: `nightshift run failures {run.id}`\n", style="dim")
    console.print(_facts_table("Lineage", _lineage(details)))


def failures_table(failures: Sequence[FailureRow]) -> Table:
    """A table with one row per failure."""
    table = make_table("stage", "what", "id", "reason", "message")
    for row in failures:
        reason = row.reason if row.fatal else f"{row.reason} (notice)"
        table.add_row(row.stage, row.subject_kind, row.subject_id, reason, row.message)
    return table


def stages_table(stages: Sequence[StageProgress]) -> Table:
    """A table with one row per stage."""
    table = make_table(
        "stage", "state", "units", "failed", "jobs", "rate", "left", "took",
        right="units failed jobs rate left took",
    )  # fmt: skip
    for stage in stages:
        took = (
            (stage.finished_at - stage.started_at).total_seconds()
            if stage.finished_at and stage.started_at
            else None
        )
        table.add_row(
            stage.stage,
            stage.state,
            f"{stage.units_done:,} / {stage.units:,}" if stage.jobs else "",
            f"{stage.units_failed:,}" if stage.units_failed else "",
            f"{stage.jobs_done + stage.jobs_failed:,} / {stage.jobs:,}" if stage.jobs else "",
            format_rate(stage.units_per_s) if stage.jobs else "",
            format_duration(stage.left_s) if stage.left_s is not None else "",
            format_duration(took) if took is not None else "",
        )
    return table


def _pace(stage: StageProgress | None, *, ended: bool) -> tuple[str, str, str]:
    """Texts for progress, rate and time left."""
    if stage is None:
        return "", "", ""
    done = f"{stage.units_done:,} / {stage.units:,}"
    return (
        (done, "", "")
        if ended
        else (done, format_rate(stage.units_per_s), format_duration(stage.left_s))
    )


def _counts_table(failures: Sequence[FailureCount]) -> Table:
    table = make_table(
        "stage", "reason", "count", "for example", right="count", title="Failures and notices"
    )
    for row in failures:
        reason = row.reason if row.fatal else f"{row.reason} (notice)"
        table.add_row(row.stage, reason, f"{row.count:,}", row.example)
    return table


def _plan(details: RunDetails) -> dict[str, str]:
    facts = {
        name.replace("_", " "): f"{value:,}" if isinstance(value, int) else str(value)
        for name, value in sorted(plan_json(details.progress.run).items(), key=_plan_order)
    }
    planned, got = details.pairs_per_group, details.pairs_per_prefix
    if planned is not None or got is not None:
        numbers = f"got {format_number(got, 2)} (planned {format_number(planned, 2)})"
        facts["reuse factor"] = f"pairs per prefix forward: {numbers}"
    if details.pictures_seen is not None:
        facts["images encoded"] = f"{details.pictures_seen:,} by the vision tower"
    if details.top_share is not None:
        facts["top-5 dimensions"] = f"{details.top_share:.0%} of a vector's squared length"
    return facts


_PLAN = (
    "items", "gone", "queries", "not_indexed", "to_embed", "pairs", "reused",
    "unscorable", "equal", "to_score", "groups", "tied",
)  # fmt: skip


def _plan_order(fact: tuple[str, object]) -> tuple[int, str]:
    """Sort key: the order in which a run sets the facts, which jsonb does not keep."""
    name = fact[0]
    return (_PLAN.index(name) if name in _PLAN else len(_PLAN), name)


def _lineage(details: RunDetails) -> dict[str, str]:
    run = details.progress.run
    facts: dict[str, str] = {}
    if details.embedder is not None and isinstance(run, IndexedRun):
        sees = f"{run.index_name}, collection {run.collection}, sees {run.index_parts} of items"
        facts |= {"index": sees} | _model("embedder", details.embedder)
    if details.scorer is not None:
        facts |= _model("scorer", details.scorer)
    return facts | _flat(run.params.model_dump(mode="json"))


def _model(role: str, model: ModelRow) -> dict[str, str]:
    return {
        role: model.spec,
        f"{role} fingerprint": f"{model.fingerprint}, by nightshift {model.package_version}",
    }


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as `scorer.enhancement.alpha`."""
    flat: dict[str, str] = {}
    for name, value in sorted(facts.items()):
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _facts_table(title: str, facts: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, title=title, title_justify="left",
                  title_style="bold", pad_edge=False)  # fmt: skip
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, visible(value))
    return table


def _what(run: AnyRun) -> str:
    if isinstance(run, TokenRun):
        return f"{run.params.codec} tokens of {run.catalog} by {run.vision}"
    if isinstance(run, IndexRun):
        return f"index {run.index_name} of {run.catalog} by {run.embedder}"
    return f"{run.method} of {run.query_set} over {run.catalog} by {run.scorer}"


def _moment(when: datetime) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}"
