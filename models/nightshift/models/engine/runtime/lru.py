"""What was made lately and may be wanted again, within a number of bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["ByteLimitedLru"]

_T = TypeVar("_T")


class ByteLimitedLru(Generic[_T]):
    """Values by key; what was not wanted for longest goes first.

    Args:
        most_bytes: Of all values together; a value larger than that is not kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
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
        if n_bytes > self._most_bytes:
            return
        self._kept[key] = value, n_bytes
        self._bytes += n_bytes
        while self._bytes > self._most_bytes:
            _, (_, gone) = self._kept.popitem(last=False)
            self._bytes -= gone

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._bytes = 0
