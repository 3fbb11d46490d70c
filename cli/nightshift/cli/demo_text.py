"""The results of the demo, as text for people."""

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from nightshift.cli.console import make_console, make_table
from nightshift.demo.night import TOP_K, Night, Ranked
from nightshift.results.report_data import QuerySection, ReportCandidate, load_report
from nightshift.stores.postgres.database import Database

__all__ = ["QUERIES_SHOWN", "measures", "print_night", "rankings"]

#: Queries in an image; those that are printed are among them.
QUERIES_SHOWN = 4
_PLACES = 3


def print_night(
    database: Database, night: Night, images: list[Path], data_dir: Path | None
) -> None:
    """Print recall, a few rankings, where the results are and what to try next.

    Args:
        database: Postgres, which holds the rankings.
        night: What was done.
        images: Files of more rankings.
        data_dir: As given on the command line, for the commands that are suggested.
    """
    forward, backward = night.text_to_image, night.image_to_text
    console = make_console()
    runs = [forward, backward, *night.others]
    console.print(
        _table(
            [ranked for ranked in runs if ranked.direction.relevant == 1],
            "Recall on held-out scenes, before and after fine scoring",
        )
    )
    if several := [ranked for ranked in runs if ranked.direction.relevant > 1]:
        console.print(
            _table(
                several,
                f"Other images of a scene that is shown small, crowded and half hidden: "
                f"{several[0].direction.relevant} are relevant to each query",
            )
        )
    console.print(_of_enhancement(night))
    for table in (*rankings(database, forward), *rankings(database, backward, n=1)):
        console.print(table)
    console.print("✓ is what was looked for. Images stand here under captions that no model saw.")
    console.print("\nMore of them, drawn:")
    for image in images:
        console.print(f"  {image}", soft_wrap=True)
    console.print("\nAll of it is in Postgres, and the stack keeps running. Try:")
    home = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    hints = [(f"  {_invoked()} {words}{home}", reason) for words, reason in _hints(forward.run_id)]
    width = max(len(command) for command, _ in hints)
    for command, reason in hints:
        console.print(f"{command:{width}}   {reason}", soft_wrap=True)


def rankings(database: Database, ranked: Ranked, *, n: int = 2) -> Iterator[Table]:
    """Heads of both orders of a query that fine scoring served best, and one that it served worst.

    Args:
        database: Postgres.
        ranked: A run that has ended.
        n: 1 for the first of them alone.
    """
    # In the order of what became of the first place: brought there, kept, lost, not reached.
    sections = load_report(database, ranked.run_id, n_queries=QUERIES_SHOWN).sections
    for section in (sections[0], sections[-1])[: min(n, len(sections))]:
        yield _ranking(ranked, section)


def measures(ranked: Ranked) -> dict[str, dict[str, float]]:
    """Quality of both orders, with four digits.

    Recall at 1, 5 and 10 where a query looks for one item. Where it looks for several, one item
    cannot be all of them: success at 1 and 5 (the field's R@1 and R@5), and mean average precision
    of the candidates.
    """
    names = {"recall@1": "recall@1", "recall@5": "recall@5", "recall@10": "recall@10"}
    if ranked.direction.relevant > 1:
        names = {"success@1": "success@1", "success@5": "success@5", f"mAP@{TOP_K}": "map"}
    return {
        order: {name: round(means[of], 4) for name, of in names.items()}
        for order, means in (
            ("coarse", ranked.evaluation.coarse),
            ("fine", ranked.evaluation.fine),
        )
    }


def _of_enhancement(night: Night) -> str:
    """Changes by a firing enhancement, for the better or not."""
    enhanced, before = night.enhanced, night.text_to_image
    without, with_it = (measures(ranked)["fine"] for ranked in (before, enhanced.ranked))
    changed = ", ".join(
        f"{name} {value:.3f} → {with_it[name]:.3f}" for name, value in without.items()
    )
    return (
        f"RetLLM's visual enhancement fired on {enhanced.share_before:.1%} of the text-to-image "
        f"pairs at its published gamma of 0.75. With gamma {enhanced.gamma:.4g}, chosen from the "
        f"measured uncertainty, it fired on {enhanced.share:.1%} in run {enhanced.ranked.run_id}: "
        f"{changed}."
    )


def _table(ranked: list[Ranked], title: str) -> Table:
    numbers = (*measures(ranked[0])["coarse"], "run")
    table = make_table(
        "direction", "order", *numbers, right=" ".join(numbers), title=title
    )  # fmt: skip
    for result in ranked:
        for order, values in measures(result).items():
            by = order if order == "coarse" else result.method
            cells = [f"{value:.3f}" for value in values.values()]
            table.add_row(result.direction.name, by, *cells, str(result.run_id))
    return table


def _ranking(ranked: Ranked, section: QuerySection) -> Table:
    title = f"{ranked.direction.name}, query {section.id}, {section.winner_change}"
    table = make_table(
        "", "coarse search", "fine scoring", title=f"{title}\n{section.text or '(an image)'}"
    )
    heads = zip(section.coarse[:_PLACES], section.fine[:_PLACES], strict=True)
    for place, (coarse, fine) in enumerate(heads, 1):
        table.add_row(str(place), _cell(coarse), _cell(fine))
    return table


def _cell(row: ReportCandidate) -> Text:
    is_relevant = row.relevant
    return Text(
        f"{'✓' if is_relevant else ' '} {row.caption}", style="green" if is_relevant else ""
    )


def _hints(run_id: int) -> list[tuple[str, str]]:
    return [
        (f"results {run_id} --query text-000", "one ranking, and why it is as it is"),
        (f"calibration {run_id}", "how sure the scorer was"),
        (f"run show {run_id}", "stages, reuse, lineage"),
        ("worker list", "who is working"),
        ("down", "stop it all; data is kept"),
    ]


def _invoked() -> str:
    """This program as the user's shell finds it: it may not be on the search path."""
    called, name = sys.argv[0], click.get_current_context().find_root().info_name or "nightshift"
    if Path(called).name != name or shutil.which(name) == str(Path(called).absolute()):
        return name
    return shlex.quote(called)
