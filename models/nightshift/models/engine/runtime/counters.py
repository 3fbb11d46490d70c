"""Counters of a loaded model's work: forwards are counted where they end."""

from dataclasses import dataclass

__all__ = ["WorkCounters"]


@dataclass(slots=True, kw_only=True)
class WorkCounters:
    """Counts that only grow; what ran out of memory and was done again counts once."""

    #: Beginnings of prompts, each as often as it was read; a prompt read whole has one of its own.
    prefixes: int = 0
    #: Images that went through the vision tower.
    images: int = 0

    def since(self, before: "WorkCounters") -> "WorkCounters":
        """The difference to an earlier copy."""
        return WorkCounters(
            prefixes=self.prefixes - before.prefixes, images=self.images - before.images
        )
