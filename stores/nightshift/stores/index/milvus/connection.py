"""One connection to Milvus: made when first used, outlasting restarts, its errors translated."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from pymilvus import MilvusClient, MilvusException

from nightshift.schema.errors import NightshiftError, NotFoundError, ServiceUnavailableError

__all__ = ["NOT_FOUND", "NOT_LOADED", "Connection"]

#: Codes of `MilvusException`.
NOT_FOUND, NOT_LOADED = 100, 101
_CONNECT_FAILED = 2

_OUTAGES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
#: Codes of `MilvusException`: memory, too many requests, disk, rate, quota, a clock that lags,
#: resources. What lacks them now may have them later.
_RESOURCES = frozenset({3, 4, 7, 8, 9, 11, 12})
#: How Milvus Lite passes on what the operating system denies it.
_DENIED = re.compile(r"\[Errno (5|12|23|24|28|30|122)\]|No space left on device|not ready")
_REFUSALS = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})

_T = TypeVar("_T")

# It logs a traceback of every failed call, and each failure reaches the caller as an error of ours.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class Connection:
    """Calls to one server, repeated while it is away.

    Args:
        uri: `http://host:port`.
        token: Empty where none is asked for.
        patience_s: How long an outage is waited out.
    """

    def __init__(self, uri: str, token: str, patience_s: float) -> None:
        self._uri = uri
        self._token = token
        self._patience_s = patience_s
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()

    def call(self, action: Callable[..., _T], *arguments: Any, **options: Any) -> _T:  # noqa: ANN401 - handed on
        """Run `action(client, *arguments, **options)` until the server has answered.

        Raises:
            ServiceUnavailableError: When it was away for longer than the patience, or refuses the
                token: whoever works waits for the setting to be mended.
            MilvusException: The server's refusal, for the caller to judge or translate.
        """
        deadline = time.monotonic() + self._patience_s
        pause_s = 0.05
        while True:
            try:
                return action(self._connected(), *arguments, **options)
            except (MilvusException, grpc.RpcError) as error:
                if _is_refusal(error):
                    raise ServiceUnavailableError(
                        f"Milvus at {self._uri} refuses the token: set NIGHTSHIFT_MILVUS_TOKEN",
                        "milvus",
                    ) from error
                if not _is_outage(error):
                    raise
                if time.monotonic() + pause_s > deadline:
                    raise ServiceUnavailableError(
                        f"Milvus at {self._uri} has not answered for {self._patience_s:.0f} s "
                        f"({_describe(error)}): check that it runs (`nightshift status`)",
                        "milvus",
                    ) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    @contextmanager
    def translated(self, subject: str) -> Iterator[None]:
        """Turn what the server refuses into errors of ours.

        Args:
            subject: What was being done to what, for the message.

        Raises:
            NotFoundError: Where the collection or alias is not there.
            NightshiftError: For any other refusal.
        """
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            if _code(error) == NOT_FOUND:
                raise NotFoundError(f"{subject}: there is no such collection or alias") from error
            raise NightshiftError(f"{subject}: Milvus refuses: {_describe(error)}") from error

    def close(self) -> None:
        """Give the connection back; the next call opens another."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connected(self) -> MilvusClient:
        with self._lock:
            if self._client is None:
                # The connection that the library would share between clients is never closed.
                self._client = MilvusClient(
                    self._uri, token=self._token, timeout=10.0, dedicated=True
                )
            return self._client


def _code(error: MilvusException | grpc.RpcError) -> object:
    return error.code() if isinstance(error, grpc.RpcError) else error.code


def _is_outage(error: MilvusException | grpc.RpcError) -> bool:
    code = _code(error)
    return (
        code in _OUTAGES
        or code == _CONNECT_FAILED
        or code in _RESOURCES
        or bool(getattr(error, "retriable", False))
        or _DENIED.search(_describe(error) or "") is not None
    )


def _is_refusal(error: MilvusException | grpc.RpcError) -> bool:
    # While it connects, the library reports a refusal in the words of an outage.
    cause = error.__cause__ if _code(error) == _CONNECT_FAILED else error
    status = cause.code() if isinstance(cause, grpc.RpcError) else None
    return status in _REFUSALS or "auth check failure" in str(error)


def _describe(error: MilvusException | grpc.RpcError) -> str:
    return error.message if isinstance(error, MilvusException) else str(error.details())
