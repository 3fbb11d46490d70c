"""The last step of a dispatcher's transaction: it commits nothing once another one leads."""

from collections.abc import Callable

from sqlalchemy import Connection

__all__ = ["Fence"]

#: Raises `LeaseLostError` where another dispatcher leads by now.
Fence = Callable[[Connection], None]
