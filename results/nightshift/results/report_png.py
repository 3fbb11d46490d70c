"""A report as one picture, drawn without a browser."""

from PIL import Image

from nightshift.results.canvas import Pen, fit, text_width
from nightshift.results.report_data import Entry, Outcome, Report, Sheet
from nightshift.results.report_text import MEASURES, chips, decided, describe, footnote, heading

__all__ = ["render_png"]

_INK, _SOFT, _LINE, _PAGE, _SHEET = "#16191d", "#667080", "#e6e8ec", "#f6f7f9", "#ffffff"
_FINE, _GOOD, _GOOD_TINT, _BAD, _WARM, _LINK = (
    "#4338ca", "#15803d", "#effaf3", "#b42318", "#b45309", "#cbd1da",
)  # fmt: skip
_OUTCOMES = {
    Outcome.RAISED: _GOOD,
    Outcome.KEPT: _GOOD,
    Outcome.LOST: _BAD,
    Outcome.MISSED: _WARM,
    Outcome.CHANGED: _SOFT,
    Outcome.SAME: _SOFT,
}

_CHIPS = {"up": _GOOD, "down": _SOFT, "fired": _WARM}

# All in units; the picture has two pixels to each.
_WIDTH, _EDGE, _PAD = 1120, 28, 20
_ROW, _THUMB, _STRIP = 60, 50, 64
_INNER = _WIDTH - 2 * (_EDGE + _PAD)
_COARSE = (_INNER - _STRIP) * 0.46
_FINE_X = _EDGE + _PAD + _COARSE + _STRIP
_FINE_WIDTH = _INNER - _STRIP - _COARSE
_TITLES, _QUERY_IMAGE = 30, 84


def render_png(report: Report) -> Image.Image:
    """The picture, 2240 pixels wide, RGB."""
    heights = [_sheet_height(sheet) for sheet in report.sheets]
    top = 100 + (72 if report.evaluation else 0)
    height = top + sum(heights) + 16 * len(heights) + 36
    pen = Pen(_WIDTH, height, _PAGE)
    _head(pen, report)
    y = float(top)
    for sheet, tall in zip(report.sheets, heights, strict=True):
        _sheet(pen, sheet, y, tall)
        y += tall + 16
    pen.text(_EDGE, y + 12, footnote(report), size=11.5, colour=_SOFT)
    return pen.finish()


def _head(pen: Pen, report: Report) -> None:
    pen.text(_EDGE, 32, "nightshift", size=13, colour=_FINE, bold=True)
    pen.text(_EDGE, 58, fit(heading(report), 22, _WIDTH - 2 * _EDGE)[0], size=22, bold=True)
    words = fit(describe(report), 12.5, _WIDTH - 2 * _EDGE)
    pen.text(_EDGE, 80, words[0], size=12.5, colour=_SOFT)
    if report.evaluation is None:
        return
    gap = 16
    width = (_WIDTH - 2 * _EDGE - gap * (len(MEASURES) - 1)) / len(MEASURES)
    for place, name in enumerate(MEASURES):
        coarse, fine = report.evaluation.coarse[name], report.evaluation.fine[name]
        _card(pen, _EDGE + place * (width + gap), 96, width, name, coarse, fine)


def _card(
    pen: Pen, x: float, y: float, width: float, name: str, coarse: float, fine: float
) -> None:
    pen.box(x, y, width, 60, radius=9, fill=_SHEET, line=_LINE)
    pen.text(x + 14, y + 35, name, bold=True)
    left, bar = x + 134, width - 134 - 58
    for baseline, order, value, colour, bold in (
        (y + 25, "coarse", coarse, "#94a3b8", False),
        (y + 45, "fine", fine, _FINE, True),
    ):
        ink = _FINE if bold else _SOFT
        pen.text(left - 10, baseline, order, size=11.5, colour=ink, align="right")
        pen.box(left, baseline - 8, bar, 7, radius=3.5, fill=_LINE)
        pen.box(left, baseline - 8, max(7, bar * value), 7, radius=3.5, fill=colour)
        pen.text(x + width - 14, baseline, f"{value:.3f}", colour=ink, bold=bold, align="right")


def _sheet_height(sheet: Sheet) -> int:
    rows = max(len(sheet.coarse), len(sheet.fine))
    return _ask_height(sheet) + _TITLES + rows * _ROW + 12


def _ask_height(sheet: Sheet) -> int:
    return max(_QUERY_IMAGE + 28 if sheet.image else 0, 40 + 22 * len(_question(sheet)))


def _question(sheet: Sheet) -> list[str]:
    """The query's text in lines that leave room for the outcome beside them."""
    picture = _QUERY_IMAGE + 16 if sheet.image else 0
    return fit(sheet.text, 17, _INNER - picture - _badge_width(sheet) - 24, lines=2)


def _badge_width(sheet: Sheet) -> float:
    return text_width(sheet.outcome, 12) + 24


def _sheet(pen: Pen, sheet: Sheet, y: float, height: float) -> None:
    pen.box(_EDGE, y, _WIDTH - 2 * _EDGE, height, radius=12, fill=_SHEET, line=_LINE)
    _ask(pen, sheet, y)
    top = y + _ask_height(sheet)
    left = _EDGE + _PAD
    _column_title(pen, left, top, _COARSE, "Coarse search", "cosine", _INK)
    _column_title(pen, _FINE_X, top, _FINE_WIDTH, "Fine scoring", "p      margin", _FINE)
    rows = top + _TITLES
    for place, entry in enumerate(sheet.coarse):
        _coarse_row(pen, entry, rows + place * _ROW)
    for place, entry in enumerate(sheet.fine):
        _fine_row(pen, entry, rows + place * _ROW)
    _links(pen, sheet, rows)


def _ask(pen: Pen, sheet: Sheet, y: float) -> None:
    badge, colour = _badge_width(sheet), _OUTCOMES[sheet.outcome]
    right = _WIDTH - _EDGE - _PAD
    middle = y + _ask_height(sheet) / 2
    pen.box(right - badge, middle - 12, badge, 24, radius=12, line=colour, fill=_SHEET)
    pen.text(right - badge / 2, middle + 4.5, sheet.outcome, size=12, colour=colour, bold=True,
             align="middle")  # fmt: skip
    x = float(_EDGE + _PAD)
    if sheet.image is not None:
        pen.picture(x, y + 16, _QUERY_IMAGE, sheet.image)
        x += _QUERY_IMAGE + 16
    lines = _question(sheet)
    baseline = middle + 4 - 11 * len(lines)
    pen.text(x, baseline, fit(sheet.id, 11.5, right - badge - 24 - x)[0], size=11.5, colour=_SOFT)
    for number, line in enumerate(lines, 1):
        pen.text(x, baseline + 22 * number, line, size=17, bold=True)


def _column_title(
    pen: Pen, x: float, y: float, width: float, name: str, figures: str, colour: str
) -> None:
    pen.text(x + 10, y + 17, name, size=12.5, colour=colour, bold=True)
    pen.text(x + width - 10, y + 17, figures, size=11.5, colour=_SOFT, align="right")
    pen.box(x, y + _TITLES - 3, width, 1, fill=_LINE)


def _coarse_row(pen: Pen, entry: Entry, y: float) -> None:
    x = _EDGE + _PAD
    _row(pen, entry, x, y, _COARSE, entry.coarse_rank, 60)
    middle = y + _ROW / 2
    pen.text(x + _COARSE - 10, middle + 5, f"{entry.coarse_score:.3f}", bold=True, align="right")


def _fine_row(pen: Pen, entry: Entry, y: float) -> None:
    figures = 106
    end, baseline = _row(pen, entry, _FINE_X, y, _FINE_WIDTH, entry.final_rank, figures)
    right, middle = _FINE_X + _FINE_WIDTH - 10, y + _ROW / 2
    _chips(pen, entry, end + 10, baseline, right - figures)
    pen.text(right, middle + 15, decided(entry), size=11.5, align="right",
             colour=_SOFT if entry.decided_by == "score" else _WARM)  # fmt: skip
    if entry.margin is None or entry.probability is None:
        pen.text(right, middle - 3, "failed", colour=_WARM, align="right")
        return
    pen.text(right, middle - 3, f"{entry.margin:+.2f}", colour=_SOFT, align="right", size=12)
    pen.text(right - 50, middle - 3, f"{entry.probability:.3f}", colour=_FINE, bold=True, size=14,
             align="right")  # fmt: skip


def _row(
    pen: Pen, entry: Entry, x: float, y: float, width: float, rank: int, figures: float
) -> tuple[float, float]:
    """Rank, thumbnail, caption and id; where the id ends."""
    if entry.relevant:
        pen.box(x, y + 2, width, _ROW - 4, radius=7, fill=_GOOD_TINT)
        pen.box(x, y + 2, 3, _ROW - 4, radius=1.5, fill=_GOOD)
    pen.text(x + 28, y + _ROW / 2 + 5, str(rank), bold=True, align="right",
             colour=_GOOD if entry.relevant else _SOFT)  # fmt: skip
    left = x + 40
    if entry.image is not None:
        pen.picture(left, y + (_ROW - _THUMB) / 2, _THUMB, entry.image)
        left += _THUMB + 12
    lines = fit(entry.caption or entry.id, 12.5, x + width - figures - left, lines=2)
    baseline = _id_line(y, len(lines)) - 16 * len(lines)
    for line in lines:
        pen.text(left, baseline, line, size=12.5)
        baseline += 16
    end = pen.text(left, baseline, fit(entry.id, 11.5, 120)[0], size=11.5, colour=_SOFT)
    if entry.relevant:
        end = pen.text(end + 8, baseline, "relevant", size=11.5, colour=_GOOD, bold=True)
    return end, baseline


def _id_line(y: float, caption_lines: int) -> float:
    """The baseline under a caption; both together stand in the middle of the row."""
    return y + _ROW / 2 + 4.5 + 8 * caption_lines


def _chips(pen: Pen, entry: Entry, x: float, baseline: float, right: float) -> None:
    """What `chips` says, as far as there is room."""
    for kind, words in chips(entry):
        arrow = 10 if kind in {"up", "down"} else 0
        if x + arrow + text_width(words, 11.5) > right:
            return
        if arrow:
            pen.arrow(x, baseline, up=kind == "up", colour=_CHIPS[kind])
        x = pen.text(x + arrow, baseline, words, size=11.5, colour=_CHIPS[kind]) + 10


def _links(pen: Pen, sheet: Sheet, y: float) -> None:
    """From each candidate's coarse place to its fine one; from below where it comes from there."""
    bottom = y + len(sheet.coarse) * _ROW + 6
    for entry in sorted(sheet.fine, key=lambda one: one.relevant):
        start = min(y + (entry.coarse_rank - 0.5) * _ROW, bottom)
        end = y + (entry.final_rank - 0.5) * _ROW
        pen.curve(
            (_FINE_X - _STRIP + 4, start),
            (_FINE_X - 4, end),
            colour=_GOOD if entry.relevant else _LINK,
            width=2.4 if entry.relevant else 1.4,
        )
