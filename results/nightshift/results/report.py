"""A report on a run: a few queries with their coarse and fine rankings side by side."""

import io
from pathlib import Path

from nightshift.results.report_data import load_report
from nightshift.results.report_html import render_html
from nightshift.results.report_png import render_png
from nightshift.schema.errors import ConfigurationError
from nightshift.stores.postgres.database import Database

__all__ = ["write_report"]


def write_report(database: Database, run_id: int, path: Path, *, n_queries: int = 6) -> None:
    """Write a report as one HTML page or one PNG image; neither needs another file.

    Args:
        database: Postgres.
        run_id: A re-ranking run that has rankings.
        path: The file; its suffix, `.html` or `.png`, decides the format.
        n_queries: How many queries to show.

    Raises:
        ConfigurationError: For another suffix.
        NotFoundError: If there is no such run.
        ConflictError: For a run that ranks nothing, or has ranked nothing yet.
    """
    if path.suffix not in {".html", ".png"}:
        raise ConfigurationError(f"a report is a .html or a .png file, not {path.name!r}")
    report = load_report(database, run_id, n_queries=n_queries)
    if path.suffix == ".html":
        path.write_text(render_html(report), encoding="utf-8")
    else:
        png = io.BytesIO()
        render_png(report).save(png, "PNG", optimize=True)
        path.write_bytes(png.getvalue())
