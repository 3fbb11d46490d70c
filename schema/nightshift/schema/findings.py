"""Findings of `nightshift doctor`."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "skipped"]

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check, and what to do about it."""

    #: The subject of the check, such as `redis`, `disk`, `runs`, `gpu`, `model` or `repair`.
    check: str
    level: Level
    message: str


def skipped(check: str, *services: str) -> Finding:
    """The finding of a check that was skipped because it needs unavailable services."""
    names = " and ".join(sorted(services))
    return Finding(check=check, level="warning", message=f"not checked without {names}")
