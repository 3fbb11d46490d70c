"""A limit on the bytes of decoded images that one process holds, over all threads."""

import threading

__all__ = ["BUDGET_BYTES", "DecodeBudget", "Reservation", "decode_budget"]

#: Together with the interpreter and the files' own bytes, well under 2 GiB.
BUDGET_BYTES = 2**30


class Reservation:
    """Bytes of a budget reserved for one image; released at the end of a `with` block."""

    def __init__(self, budget: "DecodeBudget", n_bytes: int) -> None:
        self._budget = budget
        self._n_bytes = n_bytes

    def shrink(self, n_bytes: int) -> None:
        """Release all but `n_bytes`."""
        n_bytes = min(n_bytes, self._n_bytes)
        self._budget.release(self._n_bytes - n_bytes)
        self._n_bytes = n_bytes

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.shrink(0)


class DecodeBudget:
    """A weighted semaphore over bytes.

    A reservation waits until its bytes fit. One that exceeds the whole budget waits until nothing
    else is reserved. A thread must not reserve twice at the same time: two such threads would
    wait for each other.

    Args:
        n_bytes: The most bytes that are reserved at the same time.
    """

    def __init__(self, n_bytes: int = BUDGET_BYTES) -> None:
        self._limit = n_bytes
        self._reserved = 0
        self._changed = threading.Condition()
        # Only one thread waits for room, the others wait for this lock: small images cannot
        # overtake a large one for ever.
        self._turn = threading.Lock()

    def reserve(self, n_bytes: int) -> Reservation:
        """Wait until the bytes fit, then reserve them."""
        with self._turn, self._changed:
            self._changed.wait_for(
                lambda: self._reserved == 0 or self._reserved + n_bytes <= self._limit
            )
            self._reserved += n_bytes
        return Reservation(self, n_bytes)

    def release(self, n_bytes: int) -> None:
        """Return bytes to the budget."""
        with self._changed:
            self._reserved -= n_bytes
            self._changed.notify_all()


#: The budget of this process.
decode_budget = DecodeBudget()
