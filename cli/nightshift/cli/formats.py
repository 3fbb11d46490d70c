"""Numbers, durations and failure counts as text."""

from collections import Counter
from collections.abc import Mapping

__all__ = ["format_bytes", "format_duration", "format_number", "format_rate", "format_reasons"]


def format_bytes(size: float) -> str:
    """A size such as `512 B`, `1.5 KB` or `20 GB`, in powers of 1000."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.{1 if unit != 'B' and size < 9.95 else 0}f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def format_reasons(reasons: Mapping[str, int]) -> str:
    """Failure counts such as `2 image_missing, 1 no_prompt`, the most frequent first."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(reasons).most_common())


def format_number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` decimals, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def format_rate(units_per_s: float | None) -> str:
    """A rate such as `12.5/s`, or a dash for None."""
    if units_per_s is None:
        return "–"
    return f"{units_per_s:,.{0 if units_per_s >= 100 else 1}f}/s"


def format_duration(seconds: float | None) -> str:
    """A duration such as `8 s`, `3:20` or `12:03:20`, or a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
