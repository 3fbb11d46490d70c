"""A least-recently-used cache whose limit is a number of bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["ByteLimitedLru"]

_T = TypeVar("_T")


class ByteLimitedLru(Generic[_T]):
    """Values by key; the least recently used one is dropped first.

    Args:
        max_bytes: Of all values together; a larger value is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[_T, int]] = OrderedDict()

    def get(self, key: Hashable) -> _T | None:
        """The value of a key, if it is still there."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def keep(self, key: Hashable, value: _T, n_bytes: int) -> None:
        """Keep a value under a key that has none."""
        if n_bytes > self._max_bytes:
            return
        self._kept[key] = value, n_bytes
        self._bytes += n_bytes
        while self._bytes > self._max_bytes:
            _, (_, gone) = self._kept.popitem(last=False)
            self._bytes -= gone

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._bytes = 0
