"""The state of a stack's parts, as `nightshift status` prints it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nightshift.schema.errors import NotFoundError
from nightshift.stack.embedded.state import SERVICES

__all__ = ["PartStatus", "StackStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    """The state of one process of the stack."""

    #: `postgres`, `redis`, `milvus`, `dispatcher`, `worker-1`, …
    name: str
    #: `silent`: runs and does not answer; `died`: started by `up` and gone without `down`.
    state: Literal["running", "silent", "died", "stopped"]
    pid: int | None = None
    #: `host:port` of a service.
    address: str = ""
    uptime_s: float | None = None
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """The state of every part of a stack."""

    data_dir: Path
    parts: tuple[PartStatus, ...]

    @property
    def healthy(self) -> bool:
        """True if all services run, and all programs that were started."""
        return all(
            part.state == "running" or (part.state == "stopped" and part.name not in SERVICES)
            for part in self.parts
        )

    def part(self, name: str) -> PartStatus:
        """The state of the part of that name.

        Raises:
            NotFoundError: When there is no such part.
        """
        for part in self.parts:
            if part.name == name:
                return part
        names = ", ".join(part.name for part in self.parts)
        raise NotFoundError(f"the stack of {self.data_dir} has no part {name!r}, only {names}")
