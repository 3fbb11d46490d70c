"""A report as one HTML page that holds its images and styles."""

import base64
import io
from html import escape
from importlib import resources

from PIL import Image

from nightshift.results.report_data import QuerySection, Report, ReportCandidate
from nightshift.results.report_text import MEASURES, chips, decided, describe, footnote, heading
from nightshift.schema.display import visible

__all__ = ["render_html"]

#: Height of a row and width of the strip between the columns, in CSS pixels; as in the style sheet.
_ROW_PX, _STRIP_PX = 76, 72


def render_html(report: Report) -> str:
    """Write the page; text from catalogues is escaped, and nothing is loaded from elsewhere."""
    style = resources.files("nightshift.results").joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Nightshift: {_safe(heading(report))}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{_head(report)}{''.join(map(_section, report.sections))}"
        f"<footer>{_safe(footnote(report))}</footer>\n</main>\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    cards = "".join(_card(report, name) for name in MEASURES)
    return (
        f'<header>\n<p class="brand">nightshift</p>\n<h1>{_safe(heading(report))}</h1>\n'
        f"<p>{_safe(describe(report))}</p>\n"
        + (f'<div class="cards">\n{cards}</div>\n' if cards else "")
        + "</header>\n"
    )


def _card(report: Report, name: str) -> str:
    if report.evaluation is None:
        return ""
    coarse, fine = report.evaluation.coarse[name], report.evaluation.fine[name]
    return (
        f'<div class="card"><b>{_safe(name)}</b>\n'
        f'<span>coarse</span><div class="bar"><i style="width:{coarse:.1%}"></i></div>'
        f"<span>{coarse:.3f}</span>\n"
        f'<strong>fine</strong><div class="bar fine"><i style="width:{fine:.1%}"></i></div>'
        f"<strong>{fine:.3f}</strong></div>\n"
    )


def _section(section: QuerySection) -> str:
    image = _image(section.image, "query")
    text = f"<h2>{_safe(section.text)}</h2>" if section.text else ""
    kind = section.winner_change.name.lower()
    change = f'<p class="outcome {kind}">{section.winner_change}</p>'
    return (
        f'<section>\n<div class="ask">{image}<div><p class="id">{_safe(section.id)}</p>{text}'
        f"</div>{change}</div>\n"
        '<div class="lists">\n<ol>\n'
        '<li class="title"><b>Coarse search</b><span>cosine</span></li>\n'
        f"{''.join(map(_coarse_row, section.coarse))}</ol>\n{_links(section)}"
        '<ol class="fine">\n'
        '<li class="title"><b>Fine scoring</b><span>p, margin</span></li>\n'
        f"{''.join(map(_fine_row, section.fine))}</ol>\n</div>\n</section>\n"
    )


def _coarse_row(row: ReportCandidate) -> str:
    return _row(row, row.coarse_rank, f"<b>{row.coarse_score:.3f}</b>", "")


def _fine_row(row: ReportCandidate) -> str:
    if row.margin is None or row.probability is None:
        figures = "<b>failed</b>"
    else:
        figures = f"<b>{row.probability:.3f}</b> <i>{row.margin:+.2f}</i>"
    figures += f'<em class="{row.decided_by}">{_safe(decided(row))}</em>'
    labels = [f'<em class="{kind}">{_safe(text)}</em>' for kind, text in chips(row)]
    return _row(row, row.final_rank, figures, "".join(labels))


def _row(row: ReportCandidate, rank: int, figures: str, notes: str) -> str:
    relevant = ' class="relevant"' if row.relevant else ""
    mark = "<u>relevant</u>" if row.relevant else ""
    return (
        f'<li{relevant}><span class="rank">{rank}</span>{_image(row.image, "")}'
        f'<div class="what"><p>{_safe(row.caption)}</p><p class="id">{_safe(row.id)} {mark}'
        f'{notes}</p></div><div class="figures">{figures}</div></li>\n'
    )


def _links(section: QuerySection) -> str:
    """Curves from each candidate's coarse place to its fine place.

    A candidate whose coarse place is not shown comes from below the list.
    """
    height = _ROW_PX * max(len(section.coarse), len(section.fine))
    curves = "".join(_curve(row, height) for row in sorted(section.fine, key=_is_relevant))
    return (
        f'<svg width="{_STRIP_PX}" height="{height}" viewBox="0 0 {_STRIP_PX} {height}" '
        f'aria-hidden="true">{curves}</svg>\n'
    )


def _curve(row: ReportCandidate, height: int) -> str:
    start = min((row.coarse_rank - 0.5) * _ROW_PX, height + _ROW_PX / 4)
    end = (row.final_rank - 0.5) * _ROW_PX
    middle = _STRIP_PX / 2
    kind = ' class="relevant"' if row.relevant else ""
    bend = f"C{middle:g} {start:g} {middle:g} {end:g} {_STRIP_PX} {end:g}"
    return f'<path{kind} d="M0 {start:g} {bend}"/>'


def _is_relevant(row: ReportCandidate) -> bool:
    return row.relevant


def _image(image: Image.Image | None, kind: str) -> str:
    if image is None:
        return ""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90, subsampling=0)
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<img class="{kind}" alt="" src="data:image/jpeg;base64,{encoded}">'


def _safe(text: str) -> str:
    """Escape markup and direction marks of a catalogue."""
    return escape(visible(text))
