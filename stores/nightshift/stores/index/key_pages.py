"""Intervals of keys that hold about a page each."""

from collections.abc import Iterator, Sequence

__all__ = ["key_pages"]

#: About so many keys are in memory at once.
_PAGE = 32_768


def key_pages(
    ranges: Sequence[int], sizes: Sequence[int], page: int = _PAGE
) -> Iterator[tuple[str, str | None]]:
    """Cover ranges of keys by their first byte with intervals: (from the key, before the key).

    Neighbours share an interval, and a range of many keys has several: keys are digests, so they
    are spread evenly.

    Args:
        ranges: Sorted.
        sizes: About how many keys each of the 256 ranges has.
        page: About how many keys an interval may have.
    """
    begun: list[int] = []
    for number in ranges:
        if begun and (
            number != begun[-1] + 1 or sum(sizes[held] for held in begun) + sizes[number] > page
        ):
            yield _start(begun[0]), _end(begun[-1])
            begun = []
        if sizes[number] > page:
            yield from _parts(number, sizes[number], page)
        else:
            begun.append(number)
    if begun:
        yield _start(begun[0]), _end(begun[-1])


def _parts(number: int, size: int, page: int) -> Iterator[tuple[str, str | None]]:
    digits = 1
    while size > page * 16**digits:
        digits += 1
    starts = [_start(number), *(f"{number:02x}{part:0{digits}x}" for part in range(1, 16**digits))]
    yield from zip(starts, [*starts[1:], _end(number)], strict=True)


def _start(number: int) -> str:
    return f"{number:02x}" if number else ""


def _end(number: int) -> str | None:
    return f"{number + 1:02x}" if number < 255 else None
