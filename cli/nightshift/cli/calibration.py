"""`nightshift calibration`: the distribution of a run's scores, as numbers or as a plot."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nightshift.cli.options import data_dir_option, json_option, read_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from nightshift.results.calibration import Directionality, Threshold
    from nightshift.results.runs import RunProgress
    from nightshift.scoring.calibration import CalibrationStats

__all__ = ["calibration"]

_BAR_CELLS = 28


@click.command(short_help="Plot the scores and entropies of a run.")
@click.argument("run_id", metavar="RUN", type=int)
@click.option(
    "--firing-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Print the gamma with which the enhancement would fire on this share of the pairs.",
)
@data_dir_option
@json_option
def calibration(
    run_id: int, firing_share: float | None, data_dir: Path | None, as_json: bool
) -> None:
    """Plot the scores and entropies of RUN, and count ties and enhanced pairs.

    The statistics are stored per job and merged in job order, so they are the same for any number
    of workers. For a run in progress they cover the queries ranked so far.

    Winners that the tie-break changed are counted among all queries (`n_queries`). Winners that the
    enhancement changed are counted among a sample (`n_compared`): the queries on which it fired and
    that `rerank --compare` also scored without it.

    \b
    Examples:
      nightshift calibration 7
      nightshift calibration 7 --json
      nightshift calibration 7 --firing-share 0.2

    Exits like `nightshift results`: 1 or 7 if an ended run lacks rankings.
    """
    from nightshift.api import connect
    from nightshift.cli.console import make_console
    from nightshift.cli.coverage import exit_unless_covered, warn_unless_covered
    from nightshift.cli.echo import echo, echo_json

    with connect(settings=read_settings(data_dir)) as nightshift:
        stats = nightshift.calibration(run_id)
        moved = nightshift.directionality(run_id)
        run = nightshift.run(run_id).progress
        coverage = nightshift.coverage(run_id)
        chosen = nightshift.threshold(run_id, firing_share) if firing_share else None
    if as_json:
        more = {"threshold": chosen} if chosen else {}
        echo_json({**_facts(run, stats, moved), **more, "coverage": coverage})
    else:
        _plot(make_console(), run, stats, moved)
        if chosen:
            echo(_threshold_sentence(chosen))
        warn_unless_covered(coverage)
    exit_unless_covered(coverage)


def _threshold_sentence(chosen: "Threshold") -> str:
    return (
        f"The enhancement would fire on {chosen.share:.1%} of the {chosen.n_pairs:,} pairs with "
        f"--enhancement gamma={chosen.gamma:.6g}"
    )


def _facts(
    run: "RunProgress", stats: "CalibrationStats", moved: "Directionality | None"
) -> dict[str, Any]:
    from nightshift.scoring.calibration import ENTROPY_EDGES, SCORE_EDGES

    return {
        "run_id": run.run.id,
        "state": run.run.state,
        **stats.to_json(),
        "score_edges": SCORE_EDGES,
        "entropy_edges": ENTROPY_EDGES,
        "tie_rate": _share(stats.n_tied, stats.n_scored),
        "firing_rate": _share(stats.n_fired, stats.n_scored),
        "firing_rate_by_layer": {
            layer: _share(count, stats.n_scored) for layer, count in stats.fired_by_layer.items()
        },
        "static_injection": stats.is_static,
        "directionality": moved,
        "expected_calibration_error": stats.expected_calibration_error(),
        "brier_score": stats.brier_score(),
        "stages": run.stages,
    }


def _plot(
    console: "Console",
    run: "RunProgress",
    stats: "CalibrationStats",
    moved: "Directionality | None",
) -> None:
    from rich.table import Table

    from nightshift.cli.run_text import stages_table
    from nightshift.scoring.calibration import ENTROPY_EDGES, SCORE_EDGES

    console.print(f"Run {run.run.id} ({run.run.state})", style="bold")
    console.print(_overview(stats))
    console.print(stages_table(run.stages))
    if not stats.n_scored:
        console.print("No query is ranked yet.")
        return
    scores = _bars("Score p", _ranges(SCORE_EDGES, 2), stats.score_histogram, stats.n_scored)
    beside = Table.grid(padding=(0, 6))
    beside.add_row(scores, _entropies(stats, _ranges(ENTROPY_EDGES, 1)))
    console.print(beside, "")
    if stats.fired_by_layer:
        title = f"Enhancement fired on {_percent(stats.n_fired, stats.n_scored)} of the pairs"
        layers = [f"layer {layer}" for layer in stats.fired_by_layer]
        console.print(_bars(title, layers, list(stats.fired_by_layer.values()), stats.n_scored), "")
    names, counts = list(stats.decided_by), list(stats.decided_by.values())
    console.print(_bars("Places decided by", names, counts, stats.n_candidates), "")
    for line in (*_sentences(stats), *_enhancement_sentences(stats, moved)):
        console.print(line)


def _entropies(stats: "CalibrationStats", ranges: Sequence[str]) -> "Table | str":
    """The entropy histogram; a preset that reads only the two labels measures no entropy."""
    present = [place for place, count in enumerate(stats.entropy_histogram) if count]
    if not present:
        return "Entropy: not measured with this score"
    last = present[-1] + 1
    counts = stats.entropy_histogram[:last]
    return _bars("Entropy, nats", ranges[:last], counts, sum(counts))


def _overview(stats: "CalibrationStats") -> str:
    return (
        f"{stats.n_queries:,} queries, {stats.n_candidates:,} candidates, {stats.n_scored:,} "
        f"scored, {stats.n_reused:,} of them in earlier runs, {stats.n_failed:,} failed"
    )


def _sentences(stats: "CalibrationStats") -> list[str]:
    tied = _percent(stats.n_tied, stats.n_scored)
    by_ties = f"{stats.winners_changed_by_tie_break:,} of all {stats.n_queries:,} queries"
    lines = [
        f"Tied: {tied} of the pairs, in {stats.n_tie_groups:,} groups",
        f"Winners changed by the tie-break: {by_ties}",
        f"Winners changed by the enhancement: {_changed_by_enhancement(stats)}",
    ]
    error, brier = stats.expected_calibration_error(), stats.brier_score()
    if error is not None and brier is not None:
        lines.append(
            f"Against the judgements of {stats.n_labelled:,} pairs: expected calibration error "
            f"{error:.3f}, Brier score {brier:.3f}"
        )
    return lines


def _changed_by_enhancement(stats: "CalibrationStats") -> str:
    """Counted on the sample of queries that were also scored without the enhancement."""
    if stats.n_compared:
        return (
            f"{stats.winners_changed_by_enhancement:,} of the {stats.n_compared:,} queries also "
            f"scored without it, a sample of all {stats.n_queries:,} (`rerank --compare`)"
        )
    if not stats.n_fired:
        return "none, it fired on no pair"
    return "unknown, no query was also scored without it (`rerank --compare`)"


def _enhancement_sentences(stats: "CalibrationStats", moved: "Directionality | None") -> list[str]:
    lines = []
    if stats.is_static:
        lines.append(
            f"The enhancement fired on {_percent(stats.n_fired, stats.n_scored)} of the pairs: it "
            "acts as a static injection, regardless of the model's certainty"
        )
    if moved is not None:
        lines.append(
            f"Where it fired, it moved the margin by {moved.relevant.mean:+.3f} on "
            f"{moved.relevant.pairs:,} relevant pairs and by {moved.other.mean:+.3f} on "
            f"{moved.other.pairs:,} others: a difference of {moved.difference:+.3f}, which is "
            "the part that can change an order"
        )
    return lines


def _bars(title: str, labels: Sequence[str], counts: Sequence[int], total: int) -> "Table":
    """A table with a bar for each count; the longest bar fills the width."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, show_header=False, title=title, title_justify="left", title_style="bold",
        pad_edge=False,
    )  # fmt: skip
    max_count = max(counts, default=0)
    for label, count in zip(labels, counts, strict=True):
        bar = Text(_bar(count, max_count).ljust(_BAR_CELLS), style="cyan")
        table.add_row(label, bar, f"{count:>8,}", f"{_percent(count, total):>6}")
    return table


def _bar(count: int, max_count: int) -> str:
    """Draw a bar in eighths of a character; a count above zero is always visible."""
    if not count:
        return ""
    eighths = max(1, round(8 * _BAR_CELLS * count / max_count))
    full_cells, rest = divmod(eighths, 8)
    return "█" * full_cells + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


def _ranges(edges: Sequence[float], digits: int) -> list[str]:
    return [f"{low:.{digits}f} – {high:.{digits}f}" for low, high in pairwise(edges)]


def _share(part: int, total: int) -> float | None:
    return part / total if total else None


def _percent(part: int, total: int) -> str:
    return f"{part / total:.1%}" if total else "–"
