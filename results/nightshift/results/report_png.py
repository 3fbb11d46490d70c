"""A report as one PNG image, drawn without a browser."""

from PIL import Image

from nightshift.results.canvas import Canvas, text_width, wrap_text
from nightshift.results.report_data import QuerySection, Report, ReportCandidate, WinnerChange
from nightshift.results.report_text import MEASURES, chips, decided, describe, footnote, heading

__all__ = ["render_png"]

_INK, _SOFT, _LINE, _PAGE, _PAPER = "#16191d", "#667080", "#e6e8ec", "#f6f7f9", "#ffffff"
_FINE, _GOOD, _GOOD_TINT, _BAD, _WARM, _LINK = (
    "#4338ca", "#15803d", "#effaf3", "#b42318", "#b45309", "#cbd1da",
)  # fmt: skip
_CHANGE_COLOURS = {
    WinnerChange.RAISED: _GOOD,
    WinnerChange.KEPT: _GOOD,
    WinnerChange.LOST: _BAD,
    WinnerChange.MISSED: _WARM,
    WinnerChange.CHANGED: _SOFT,
    WinnerChange.SAME: _SOFT,
}

_CHIP_COLOURS = {"up": _GOOD, "down": _SOFT, "fired": _WARM}

# All in units; the image has two pixels to each.
_WIDTH, _EDGE, _PAD = 1120, 28, 20
_ROW, _THUMB, _STRIP = 60, 50, 64
_INNER = _WIDTH - 2 * (_EDGE + _PAD)
_COARSE = (_INNER - _STRIP) * 0.46
_FINE_X = _EDGE + _PAD + _COARSE + _STRIP
_FINE_WIDTH = _INNER - _STRIP - _COARSE
_TITLES, _QUERY_IMAGE = 30, 84


def render_png(report: Report) -> Image.Image:
    """Draw the report as an RGB image, 2240 pixels wide."""
    heights = [_section_height(section) for section in report.sections]
    top = 100 + (72 if report.evaluation else 0)
    height = top + sum(heights) + 16 * len(heights) + 36
    canvas = Canvas(_WIDTH, height, _PAGE)
    _head(canvas, report)
    y = float(top)
    for section, section_height in zip(report.sections, heights, strict=True):
        _section(canvas, section, y, section_height)
        y += section_height + 16
    canvas.text(_EDGE, y + 12, footnote(report), size=11.5, colour=_SOFT)
    return canvas.finish()


def _head(canvas: Canvas, report: Report) -> None:
    canvas.text(_EDGE, 32, "nightshift", size=13, colour=_FINE, bold=True)
    canvas.text(
        _EDGE, 58, wrap_text(heading(report), 22, _WIDTH - 2 * _EDGE)[0], size=22, bold=True
    )
    lines = wrap_text(describe(report), 12.5, _WIDTH - 2 * _EDGE)
    canvas.text(_EDGE, 80, lines[0], size=12.5, colour=_SOFT)
    if report.evaluation is None:
        return
    gap = 16
    width = (_WIDTH - 2 * _EDGE - gap * (len(MEASURES) - 1)) / len(MEASURES)
    for place, name in enumerate(MEASURES):
        coarse, fine = report.evaluation.coarse[name], report.evaluation.fine[name]
        _card(canvas, _EDGE + place * (width + gap), 96, width, name, coarse, fine)


def _card(
    canvas: Canvas, x: float, y: float, width: float, name: str, coarse: float, fine: float
) -> None:
    canvas.box(x, y, width, 60, radius=9, fill=_PAPER, outline=_LINE)
    canvas.text(x + 14, y + 35, name, bold=True)
    left, bar = x + 134, width - 134 - 58
    for baseline, order, value, colour, bold in (
        (y + 25, "coarse", coarse, "#94a3b8", False),
        (y + 45, "fine", fine, _FINE, True),
    ):
        ink = _FINE if bold else _SOFT
        canvas.text(left - 10, baseline, order, size=11.5, colour=ink, align="right")
        canvas.box(left, baseline - 8, bar, 7, radius=3.5, fill=_LINE)
        canvas.box(left, baseline - 8, max(7, bar * value), 7, radius=3.5, fill=colour)
        canvas.text(x + width - 14, baseline, f"{value:.3f}", colour=ink, bold=bold, align="right")


def _section_height(section: QuerySection) -> int:
    rows = max(len(section.coarse), len(section.fine))
    return _query_height(section) + _TITLES + rows * _ROW + 12


def _query_height(section: QuerySection) -> int:
    return max(_QUERY_IMAGE + 28 if section.image else 0, 40 + 22 * len(_query_lines(section)))


def _query_lines(section: QuerySection) -> list[str]:
    """The query's text in lines that leave room for the badge beside them."""
    image_width = _QUERY_IMAGE + 16 if section.image else 0
    return wrap_text(
        section.text, 17, _INNER - image_width - _badge_width(section) - 24, max_lines=2
    )


def _badge_width(section: QuerySection) -> float:
    return text_width(section.winner_change, 12) + 24


def _section(canvas: Canvas, section: QuerySection, y: float, height: float) -> None:
    canvas.box(_EDGE, y, _WIDTH - 2 * _EDGE, height, radius=12, fill=_PAPER, outline=_LINE)
    _query(canvas, section, y)
    top = y + _query_height(section)
    left = _EDGE + _PAD
    _column_title(canvas, left, top, _COARSE, "Coarse search", "cosine", _INK)
    _column_title(canvas, _FINE_X, top, _FINE_WIDTH, "Fine scoring", "p      margin", _FINE)
    rows = top + _TITLES
    for place, row in enumerate(section.coarse):
        _coarse_row(canvas, row, rows + place * _ROW)
    for place, row in enumerate(section.fine):
        _fine_row(canvas, row, rows + place * _ROW)
    _links(canvas, section, rows)


def _query(canvas: Canvas, section: QuerySection, y: float) -> None:
    badge, colour = _badge_width(section), _CHANGE_COLOURS[section.winner_change]
    right = _WIDTH - _EDGE - _PAD
    middle = y + _query_height(section) / 2
    canvas.box(right - badge, middle - 12, badge, 24, radius=12, outline=colour, fill=_PAPER)
    canvas.text(
        right - badge / 2,
        middle + 4.5,
        section.winner_change,
        size=12,
        colour=colour,
        bold=True,
        align="middle",
    )
    x = float(_EDGE + _PAD)
    if section.image is not None:
        canvas.thumbnail(x, y + 16, _QUERY_IMAGE, section.image)
        x += _QUERY_IMAGE + 16
    lines = _query_lines(section)
    baseline = middle + 4 - 11 * len(lines)
    canvas.text(
        x, baseline, wrap_text(section.id, 11.5, right - badge - 24 - x)[0], size=11.5, colour=_SOFT
    )
    for number, line in enumerate(lines, 1):
        canvas.text(x, baseline + 22 * number, line, size=17, bold=True)


def _column_title(
    canvas: Canvas, x: float, y: float, width: float, name: str, figures: str, colour: str
) -> None:
    canvas.text(x + 10, y + 17, name, size=12.5, colour=colour, bold=True)
    canvas.text(x + width - 10, y + 17, figures, size=11.5, colour=_SOFT, align="right")
    canvas.box(x, y + _TITLES - 3, width, 1, fill=_LINE)


def _coarse_row(canvas: Canvas, row: ReportCandidate, y: float) -> None:
    x = _EDGE + _PAD
    _row(canvas, row, x, y, _COARSE, row.coarse_rank, 60)
    middle = y + _ROW / 2
    canvas.text(x + _COARSE - 10, middle + 5, f"{row.coarse_score:.3f}", bold=True, align="right")


def _fine_row(canvas: Canvas, row: ReportCandidate, y: float) -> None:
    figures = 106
    end, baseline = _row(canvas, row, _FINE_X, y, _FINE_WIDTH, row.final_rank, figures)
    right, middle = _FINE_X + _FINE_WIDTH - 10, y + _ROW / 2
    _chips(canvas, row, end + 10, baseline, right - figures)
    canvas.text(
        right,
        middle + 15,
        decided(row),
        size=11.5,
        align="right",
        colour=_SOFT if row.decided_by == "score" else _WARM,
    )
    if row.margin is None or row.probability is None:
        canvas.text(right, middle - 3, "failed", colour=_WARM, align="right")
        return
    canvas.text(right, middle - 3, f"{row.margin:+.2f}", colour=_SOFT, align="right", size=12)
    canvas.text(
        right - 50,
        middle - 3,
        f"{row.probability:.3f}",
        colour=_FINE,
        bold=True,
        size=14,
        align="right",
    )


def _row(
    canvas: Canvas,
    row: ReportCandidate,
    x: float,
    y: float,
    width: float,
    rank: int,
    figures: float,
) -> tuple[float, float]:
    """Draw rank, thumbnail, caption and id; returns x and baseline of the end of the id."""
    if row.relevant:
        canvas.box(x, y + 2, width, _ROW - 4, radius=7, fill=_GOOD_TINT)
        canvas.box(x, y + 2, 3, _ROW - 4, radius=1.5, fill=_GOOD)
    canvas.text(
        x + 28,
        y + _ROW / 2 + 5,
        str(rank),
        bold=True,
        align="right",
        colour=_GOOD if row.relevant else _SOFT,
    )
    left = x + 40
    if row.image is not None:
        canvas.thumbnail(left, y + (_ROW - _THUMB) / 2, _THUMB, row.image)
        left += _THUMB + 12
    lines = wrap_text(row.caption or row.id, 12.5, x + width - figures - left, max_lines=2)
    baseline = _id_line(y, len(lines)) - 16 * len(lines)
    for line in lines:
        canvas.text(left, baseline, line, size=12.5)
        baseline += 16
    end = canvas.text(left, baseline, wrap_text(row.id, 11.5, 120)[0], size=11.5, colour=_SOFT)
    if row.relevant:
        end = canvas.text(end + 8, baseline, "relevant", size=11.5, colour=_GOOD, bold=True)
    return end, baseline


def _id_line(y: float, caption_lines: int) -> float:
    """The baseline of the id under a caption, so that both are centred in the row."""
    return y + _ROW / 2 + 4.5 + 8 * caption_lines


def _chips(canvas: Canvas, row: ReportCandidate, x: float, baseline: float, right: float) -> None:
    """Draw the chips that there is room for."""
    for kind, label in chips(row):
        arrow = 10 if kind in {"up", "down"} else 0
        if x + arrow + text_width(label, 11.5) > right:
            return
        if arrow:
            canvas.arrow(x, baseline, up=kind == "up", colour=_CHIP_COLOURS[kind])
        x = canvas.text(x + arrow, baseline, label, size=11.5, colour=_CHIP_COLOURS[kind]) + 10


def _links(canvas: Canvas, section: QuerySection, y: float) -> None:
    """Draw a curve from each candidate's coarse place to its fine place.

    A candidate whose coarse place is not shown comes from below the list.
    """
    bottom = y + len(section.coarse) * _ROW + 6
    for row in sorted(section.fine, key=lambda row: row.relevant):
        start = min(y + (row.coarse_rank - 0.5) * _ROW, bottom)
        end = y + (row.final_rank - 0.5) * _ROW
        canvas.curve(
            (_FINE_X - _STRIP + 4, start),
            (_FINE_X - 4, end),
            colour=_GOOD if row.relevant else _LINK,
            width=2.4 if row.relevant else 1.4,
        )
