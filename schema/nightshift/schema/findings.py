"""What a check of the system found."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found, and what to do about it."""

    #: What was looked at, such as `redis`, `disk`, `runs`, `gpu`, `model` or `repair`.
    check: str
    level: Level
    message: str
