"""The words of a report, the same on the page and in the picture."""

from nightshift.results.report_data import Entry, Report
from nightshift.schema.display import visible
from nightshift.schema.states import DecidedBy

__all__ = ["MEASURES", "chips", "decided", "describe", "footnote", "heading"]

#: Measures that the head of a report compares.
MEASURES = ("recall@1", "recall@5", "recall@10")

_DECIDED = {
    DecidedBy.SCORE: "by score",
    DecidedBy.ENTROPY: "tie, by entropy",
    DecidedBy.COARSE: "by coarse order",
}


def heading(report: Report) -> str:
    """Such as `Run 7: questions over pictures`."""
    return visible(f"Run {report.run.id}: {report.run.query_set} over {report.run.catalog}")


def describe(report: Report) -> str:
    """What was done, with which models."""
    run = report.run
    of_all = "" if report.covered.complete else f"{report.covered}. "
    measured = report.evaluation
    if measured is not None and measured.n_measured < measured.n_queries:
        of_all += f"{measured.n_measured:,} of {measured.n_queries:,} judged ones are measured. "
    return (
        f"{of_all}{report.n_queries:,} queries over {report.n_items:,} items: the "
        f"{run.params['top_k']} nearest by {_name(run.embedder)}, re-ranked by "
        f"{_name(run.scorer or '')}, which saw "
        f"{_parts(run.params['query_parts'])} of the query and "
        f"{_parts(run.params['item_parts'])} of the item."
    )


def chips(entry: Entry) -> list[tuple[str, str]]:
    """(kind, words) for how far a candidate moved and what helped the scorer to see it."""
    found = []
    if entry.coarse_rank != entry.final_rank:
        kind = "up" if entry.coarse_rank > entry.final_rank else "down"
        found.append((kind, f"from {entry.coarse_rank}"))
    if entry.fired_layer is not None:
        found.append(("fired", f"enhanced at layer {entry.fired_layer}"))
    return found


def decided(entry: Entry) -> str:
    """What put a candidate where it stands."""
    return _DECIDED[entry.decided_by]


def footnote(report: Report) -> str:
    """How to read it, and what made it."""
    judged = "" if report.evaluation is None else " Green: judged relevant."
    return (
        "One of each thing that fine scoring did to the first place, the rest in proportion."
        f"{judged} Scorer fingerprint {report.run.scorer_fingerprint}."
    )


def _name(spec: str) -> str:
    """A model as people call it: of a local directory, the last two names."""
    spec = visible(spec)
    name = spec.partition(":")[2]
    return "/".join(name.rstrip("/").split("/")[-2:]) if name.startswith("/") else spec


def _parts(names: str) -> str:
    return names.replace(",", " and ")
