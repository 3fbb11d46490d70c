"""A contact sheet of a run: a few queries, their coarse and fine rankings side by side."""

import io
from pathlib import Path

from nightshift.results.report_data import load_report
from nightshift.results.report_html import render_html
from nightshift.results.report_png import render_png
from nightshift.schema.errors import ConfigurationError
from nightshift.stores.postgres.database import Database

__all__ = ["write_report"]


def write_report(database: Database, run_id: int, path: Path, *, n_queries: int = 6) -> None:
    """Write a page (`.html`) or a picture (`.png`) of a run; each is one file that needs no other.

    Args:
        database: Postgres.
        run_id: A rerank run that has rankings.
        path: Where to; its ending decides the format.
        n_queries: How many queries are shown.

    Raises:
        ConfigurationError: For another ending.
        NotFoundError: Where there is no such run.
        ConflictError: For an index run, or one that has ranked nothing yet.
    """
    if path.suffix not in {".html", ".png"}:
        raise ConfigurationError(f"a report is a .html or a .png file, not {path.name!r}")
    report = load_report(database, run_id, n_queries=n_queries)
    if path.suffix == ".html":
        path.write_text(render_html(report), encoding="utf-8")
    else:
        picture = io.BytesIO()
        render_png(report).save(picture, "PNG", optimize=True)
        path.write_bytes(picture.getvalue())
