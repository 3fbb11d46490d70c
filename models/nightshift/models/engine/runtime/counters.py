"""What a loaded model has done: forwards are counted where they end, whoever asked for them."""

from dataclasses import dataclass

__all__ = ["WorkCounters"]


@dataclass(slots=True, kw_only=True)
class WorkCounters:
    """Counts that only grow; what ran out of memory and was done again counts once."""

    #: Beginnings of prompts, each as often as it was read; a prompt read whole has one of its own.
    prefixes: int = 0
    #: Pictures that went through the vision tower.
    images: int = 0

    def since(self, before: "WorkCounters") -> "WorkCounters":
        """What came after an earlier copy was taken."""
        return WorkCounters(
            prefixes=self.prefixes - before.prefixes, images=self.images - before.images
        )
