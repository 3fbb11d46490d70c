"""How many bytes of decoded images one process holds at once, whatever its threads."""

import threading

__all__ = ["BUDGET_BYTES", "DecodeBudget", "Held", "decode_budget"]

#: Together with the interpreter and the files' own bytes, well under 2 GiB.
BUDGET_BYTES = 2**30


class Held:
    """Bytes that one image takes of a budget; given back at the end of a `with` block."""

    def __init__(self, budget: "DecodeBudget", n_bytes: int) -> None:
        self._budget = budget
        self._n_bytes = n_bytes

    def shrink(self, n_bytes: int) -> None:
        """Keep only so many from now on."""
        n_bytes = min(n_bytes, self._n_bytes)
        self._budget.give(self._n_bytes - n_bytes)
        self._n_bytes = n_bytes

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.shrink(0)


class DecodeBudget:
    """A weighted semaphore: an image waits until its bytes fit; one that never fits goes alone.

    Whoever holds bytes must not ask for more: two that do would wait for each other.

    Args:
        n_bytes: That may be held at once.
    """

    def __init__(self, n_bytes: int = BUDGET_BYTES) -> None:
        self._limit = n_bytes
        self._held = 0
        self._changed = threading.Condition()
        # One waits at the door, the others behind it: a large image is not passed for ever.
        self._door = threading.Lock()

    def take(self, n_bytes: int) -> Held:
        """Wait until so many bytes fit."""
        with self._door, self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + n_bytes <= self._limit)
            self._held += n_bytes
        return Held(self, n_bytes)

    def give(self, n_bytes: int) -> None:
        """Let others have them."""
        with self._changed:
            self._held -= n_bytes
            self._changed.notify_all()


#: Of this process.
decode_budget = DecodeBudget()
