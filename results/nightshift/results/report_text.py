"""The texts of a report, the same in HTML and PNG."""

from nightshift.results.report_data import Report, ReportCandidate
from nightshift.schema.display import visible
from nightshift.schema.states import DecidedBy

__all__ = ["MEASURES", "chips", "decided", "describe", "footnote", "heading"]

#: The measures at the top of a report.
MEASURES = ("recall@1", "recall@5", "recall@10")

_DECIDED = {
    DecidedBy.SCORE: "by score",
    DecidedBy.ENTROPY: "tie, by entropy",
    DecidedBy.COARSE: "by coarse order",
}


def heading(report: Report) -> str:
    """The title, such as `Run 7: questions over photos`."""
    return visible(f"Run {report.run.id}: {report.run.query_set} over {report.run.catalog}")


def describe(report: Report) -> str:
    """One sentence about the run: its queries, items and models."""
    run = report.run
    incomplete = "" if report.coverage.complete else f"{report.coverage}. "
    evaluation = report.evaluation
    if evaluation is not None and evaluation.n_measured < evaluation.n_queries:
        counts = f"{evaluation.n_measured:,} of {evaluation.n_queries:,}"
        incomplete += f"{counts} judged queries are measured. "
    return (
        f"{incomplete}{report.n_queries:,} queries over {report.n_items:,} items: the "
        f"{run.params.top_k} nearest by {_name(run.embedder)}, re-ranked by "
        f"{_name(run.scorer)}, which saw "
        f"{_parts(run.params.query_parts)} of the query and "
        f"{_parts(run.params.item_parts)} of the item."
    )


def chips(row: ReportCandidate) -> list[tuple[str, str]]:
    """Labels as (kind, text): how far a candidate moved, and whether the enhancement fired."""
    labels = []
    if row.coarse_rank != row.final_rank:
        kind = "up" if row.coarse_rank > row.final_rank else "down"
        labels.append((kind, f"from {row.coarse_rank}"))
    if row.fired_layer is not None:
        labels.append(("fired", f"enhanced at layer {row.fired_layer}"))
    return labels


def decided(row: ReportCandidate) -> str:
    """The rule that decided a candidate's place."""
    return _DECIDED[row.decided_by]


def footnote(report: Report) -> str:
    """The legend, and the scorer's fingerprint."""
    judged = "" if report.evaluation is None else " Green: judged relevant."
    return (
        "One query of each effect that fine scoring had on the first place, the rest in proportion."
        f"{judged} Scorer fingerprint {report.run.scorer_fingerprint}."
    )


def _name(spec: str) -> str:
    """A short name of a model; of a local directory, its last two names."""
    spec = visible(spec)
    name = spec.partition(":")[2]
    return "/".join(name.rstrip("/").split("/")[-2:]) if name.startswith("/") else spec


def _parts(names: str) -> str:
    return names.replace(",", " and ")
