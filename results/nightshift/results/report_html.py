"""A report as one HTML page, pictures and styles included."""

import base64
import io
from html import escape
from importlib import resources

from PIL import Image

from nightshift.results.report_data import Entry, Report, Sheet
from nightshift.results.report_text import MEASURES, chips, decided, describe, footnote, heading
from nightshift.schema.display import visible

__all__ = ["render_html"]

#: Height of a row and width of the strip between the columns, in CSS pixels; as in the style sheet.
_ROW_PX, _STRIP_PX = 76, 72


def render_html(report: Report) -> str:
    """The page; everything from catalogues is escaped, and nothing is loaded from elsewhere."""
    style = resources.files("nightshift.results").joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Nightshift: {_safe(heading(report))}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{_head(report)}{''.join(map(_sheet, report.sheets))}"
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


def _sheet(sheet: Sheet) -> str:
    picture = _image(sheet.image, "query")
    text = f"<h2>{_safe(sheet.text)}</h2>" if sheet.text else ""
    return (
        f'<section>\n<div class="ask">{picture}<div><p class="id">{_safe(sheet.id)}</p>{text}'
        f'</div><p class="outcome {sheet.outcome.name.lower()}">{sheet.outcome}</p></div>\n'
        '<div class="lists">\n<ol>\n'
        '<li class="title"><b>Coarse search</b><span>cosine</span></li>\n'
        f"{''.join(map(_coarse_row, sheet.coarse))}</ol>\n{_links(sheet)}"
        '<ol class="fine">\n'
        '<li class="title"><b>Fine scoring</b><span>p, margin</span></li>\n'
        f"{''.join(map(_fine_row, sheet.fine))}</ol>\n</div>\n</section>\n"
    )


def _coarse_row(entry: Entry) -> str:
    return _row(entry, entry.coarse_rank, f"<b>{entry.coarse_score:.3f}</b>", "")


def _fine_row(entry: Entry) -> str:
    if entry.margin is None or entry.probability is None:
        figures = "<b>failed</b>"
    else:
        figures = f"<b>{entry.probability:.3f}</b> <i>{entry.margin:+.2f}</i>"
    figures += f'<em class="{entry.decided_by}">{_safe(decided(entry))}</em>'
    words = [f'<em class="{kind}">{_safe(text)}</em>' for kind, text in chips(entry)]
    return _row(entry, entry.final_rank, figures, "".join(words))


def _row(entry: Entry, rank: int, figures: str, notes: str) -> str:
    relevant = ' class="relevant"' if entry.relevant else ""
    mark = "<u>relevant</u>" if entry.relevant else ""
    return (
        f'<li{relevant}><span class="rank">{rank}</span>{_image(entry.image, "")}'
        f'<div class="what"><p>{_safe(entry.caption)}</p><p class="id">{_safe(entry.id)} {mark}'
        f'{notes}</p></div><div class="figures">{figures}</div></li>\n'
    )


def _links(sheet: Sheet) -> str:
    """Curves from each candidate's coarse place to its fine one; from below where it came from."""
    height = _ROW_PX * max(len(sheet.coarse), len(sheet.fine))
    curves = "".join(_curve(entry, height) for entry in sorted(sheet.fine, key=_is_relevant))
    return (
        f'<svg width="{_STRIP_PX}" height="{height}" viewBox="0 0 {_STRIP_PX} {height}" '
        f'aria-hidden="true">{curves}</svg>\n'
    )


def _curve(entry: Entry, height: int) -> str:
    start = min((entry.coarse_rank - 0.5) * _ROW_PX, height + _ROW_PX / 4)
    end = (entry.final_rank - 0.5) * _ROW_PX
    middle = _STRIP_PX / 2
    kind = ' class="relevant"' if entry.relevant else ""
    bend = f"C{middle:g} {start:g} {middle:g} {end:g} {_STRIP_PX} {end:g}"
    return f'<path{kind} d="M0 {start:g} {bend}"/>'


def _is_relevant(entry: Entry) -> bool:
    return entry.relevant


def _image(image: Image.Image | None, kind: str) -> str:
    if image is None:
        return ""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90, subsampling=0)
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<img class="{kind}" alt="" src="data:image/jpeg;base64,{encoded}">'


def _safe(text: str) -> str:
    """Neither markup nor direction marks of a catalogue reach the page."""
    return escape(visible(text))
