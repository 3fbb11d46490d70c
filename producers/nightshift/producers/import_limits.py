"""The limits of an import: reasons to refuse it, and reasons not to mark items as gone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Self

from nightshift.producers.column_summary import ColumnSummary
from nightshift.schema.errors import ConfigurationError
from nightshift.stores.catalog.comparison import Comparison, KindCounts

__all__ = ["ImportLimits", "Limit", "ReadCounts", "prune_refusal_reason", "refusal_reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most rows or items that are allowed: a number or a share."""

    number: int = 0
    percent: Fraction | None = None

    @classmethod
    def parse(cls, given: str) -> Self:
        """Parse `20` or `2.5%`.

        Raises:
            ConfigurationError: When it is neither.
        """
        parsed = _LIMIT.fullmatch(given.strip())
        if parsed and parsed["number"]:
            return cls(number=int(parsed["number"]))
        if parsed and (percent := Fraction(parsed["percent"])) <= 100:
            return cls(percent=percent)
        raise ConfigurationError(
            f"{given!r} is not a limit; write a number such as 20, or a share such as 5%"
        )

    def of(self, total: int) -> int:
        """The number that it allows of a total."""
        return self.number if self.percent is None else floor(self.percent * total / 100)

    @property
    def is_zero(self) -> bool:
        """True if it allows none of any total."""
        return not (self.number or self.percent)

    def __str__(self) -> str:
        return str(self.number) if self.percent is None else f"{float(self.percent):g}%"


_LIMIT = re.compile(r"(?P<number>[0-9]{1,18})|(?P<percent>[0-9]{1,3}(\.[0-9]{1,18})?)%")
_MAX_KIND_CHANGES = Limit(percent=Fraction(10))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportLimits:
    """The changes that an import may make.

    Args:
        prune: Mark items as gone that the source no longer names.
        max_gone: The most live items of the source that may be marked as gone; more refuse the
            import. One item is always allowed, unless the limit is 0.
        accept_unreadable: The number of rows without a readable id that still allow `prune`.
        max_failures: The most rows that may fail; more refuse the import. None allows any number.
        change_kinds: True allows more than 10 % of the items to change between text, image and
            both.
    """

    prune: bool = False
    max_gone: Limit = Limit(percent=Fraction(10))
    accept_unreadable: int = 0
    max_failures: Limit | None = None
    change_kinds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCounts:
    """Counts of the rows that were read from a source."""

    read: int = 0
    failed: int = 0
    #: Failed rows whose ids are unknown.
    unreadable: int = 0
    #: Files that could not be read to their end.
    broken_files: int = 0


def refusal_reason(
    limits: ImportLimits, read: ReadCounts, diff: Comparison, columns: ColumnSummary
) -> tuple[str, str] | None:
    """The reason to refuse the import, as (stable code, message); None if it may be applied."""
    max_failures = None if limits.max_failures is None else limits.max_failures.of(read.read)
    if max_failures is not None and read.failed > max_failures:
        return "too_many_failures", (
            f"{read.failed:,} of {read.read:,} rows failed, and --max-failures "
            f"{limits.max_failures} allows {max_failures:,}; correct the source, or raise the limit"
        )
    if diff.kinds_changed > _MAX_KIND_CHANGES.of(diff.known) and not limits.change_kinds:
        return "kinds_changed", " ".join(_kinds_message(diff, columns))
    if limits.prune and prune_refusal_reason(limits, read, diff) is None:
        max_gone = max(limits.max_gone.of(diff.owned), 0 if limits.max_gone.is_zero else 1)
        if diff.leaving > max_gone:
            return "too_many_gone", (
                f"{diff.leaving:,} of the {diff.owned:,} items are no longer in this source, "
                f"and --max-gone {limits.max_gone} allows {max_gone:,}. Check that the source "
                "is complete; if it is, raise the limit (--max-gone 100% for any number)"
            )
    return None


def prune_refusal_reason(limits: ImportLimits, read: ReadCounts, diff: Comparison) -> str | None:
    """The reason that the items which left the source are unknown; None if they are known."""
    if read.broken_files:
        return (
            "the source was not read to its end "
            f"({_count(read.broken_files, 'file or folder', 'files or folders')} at fault), so "
            "that its other rows are unknown; correct it and import again"
        )
    if read.unreadable > limits.accept_unreadable:
        return (
            f"{_count(read.unreadable, 'row has', 'rows have')} no readable id, so that any item "
            "may be meant; correct the source, or pass "
            f"--accept-unreadable {read.unreadable} if none is"
        )
    if diff.accepted + diff.unchanged == 0:
        return "the source held no good row"
    if diff.is_new_source and diff.others:
        return (
            "nothing was imported from this source before, so that no item is its own, and "
            f"{_count(diff.others, 'item', 'items')} of other sources stay. If it is the same "
            "feed under a new name, import it under one name every time (a link will do)"
        )
    return None


def _kinds_message(diff: Comparison, columns: ColumnSummary) -> Iterator[str]:
    yield (
        f"{diff.kinds_changed:,} of {diff.known:,} items would change what they consist of "
        f"({_kinds(diff.kinds_before)} before, {_kinds(diff.kinds_after)} after)."
    )
    like_images = columns.like_images()
    yield f"The source has the columns {columns.names()}."
    if like_images:
        names = ", ".join(map(repr, like_images[:5]))
        yield f"These may hold images: {names}: name it with --map image=COLUMN."
    yield "If the change is intended, import with --yes"


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def _kinds(counts: KindCounts) -> str:
    return f"{counts.text:,} text, {counts.image:,} image, {counts.both:,} both"
