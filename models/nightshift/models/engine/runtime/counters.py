"""What a loaded model has done: forwards are counted where they end, whoever asked for them."""

from dataclasses import dataclass

__all__ = ["Work"]


@dataclass(slots=True, kw_only=True)
class Work:
    """Counts that only grow; what ran out of memory and was done again counts once."""

    #: Beginnings of prompts, each as often as it was read; a prompt read whole has one of its own.
    prefixes: int = 0
    #: Pictures that went through the vision tower.
    pictures: int = 0

    def since(self, before: "Work") -> "Work":
        """What came after an earlier copy was taken."""
        return Work(
            prefixes=self.prefixes - before.prefixes, pictures=self.pictures - before.pictures
        )
