"""Kombu's Redis transport, made to drop what is no message at all instead of ending the worker."""

import logging
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import DataError

__all__ = ["drop_malformed_messages"]

_log = logging.getLogger(__name__)

_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, DataError)


class Channel(redis.Channel):
    """Takes messages off queues.

    Whoever can write to Redis can put anything there. Kombu unpacks an entry before anything of
    Celery's guards it, and what it cannot unpack ends the worker; what Celery then cannot read
    stays unacknowledged, comes back at the next start, and ends that worker too.
    """

    def _brpop_read(self, **options: Any) -> Any:  # noqa: ANN401 - kombu's signature
        before = set(self.qos._delivered)  # noqa: SLF001 - kombu's own protocol of its classes
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
            DataError,
        ) as error:
            for tag in set(self.qos._delivered) - before:  # noqa: SLF001
                self.qos.ack(tag)
            _log.warning(
                "dropped a malformed message (%s: %s): who else writes to this Redis?",
                type(error).__name__,
                str(error)[:200],
            )
            raise Empty from error


class Transport(redis.Transport):
    """Redis, with the channel above."""

    Channel = Channel


def drop_malformed_messages() -> None:
    """Use this transport for `redis://` and `rediss://` from now on, in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
