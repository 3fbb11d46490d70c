"""The result of comparing the staged rows of an import with its catalogue."""

from dataclasses import dataclass

from nightshift.stores.catalog.revisions import RevisionCounts

__all__ = ["Comparison", "Duplicate", "KindCounts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCounts:
    """Counts of items by the kinds of their parts."""

    text: int = 0
    image: int = 0
    both: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Counts of what applying the staged rows would change."""

    #: New, changed, or back after they were gone.
    accepted: int
    #: Those among them that are new, or back after they were gone.
    added: int
    #: Content, parts and metadata are stored already.
    unchanged: int
    #: Live items of the catalogue.
    live: int
    #: Those that the source names.
    known: int
    #: Those whose kinds of parts would change.
    kinds_changed: int
    kinds_before: KindCounts
    kinds_after: KindCounts
    #: Live items of the source.
    owned: int
    #: Those that it no longer names, not even in a row that failed.
    leaving: int
    #: Live items that it does not name and whose source an earlier release did not record.
    unknown: int
    #: Live items that it does not name and another source brought.
    others: int
    #: Whether nothing was taken from this source before.
    is_new_source: bool

    def counts_after(self, *, prune: bool) -> RevisionCounts:
        """The counts of the revision that applying the staged rows makes."""
        removed = self.leaving if prune else 0
        return RevisionCounts(
            items=self.live + self.added - removed,
            added=self.added,
            changed=self.accepted - self.added,
            removed=removed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A row whose id an earlier good row has."""

    position: str
    external_id: str
