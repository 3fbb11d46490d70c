"""Kombu's Redis transport, which survives errors of Redis and malformed messages in its queues.

Two things would end a worker: an answer such as READONLY or OOM, which kombu treats as a fault of
the program, and a message that is not a doorbell. The first is waited out, the second is dropped.
"""

import base64
import json
import logging
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import DataError, RedisError

from nightshift.schema.messages import MessageBody

__all__ = ["harden"]

_log = logging.getLogger(__name__)

_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, DataError)
#: A doorbell takes about a thousand bytes.
_MAX_BYTES = 16_384
#: Of Postgres' bigint.
_LAST_ID = 2**63 - 1


class QoS(redis.QoS):
    """Requeues the messages of an ended worker; a message that cannot be requeued is deleted."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: ANN401 - kombu's signature
        with self.channel.conn_or_acquire(client) as own:
            size = own.hstrlen(self.unacked_key, tag)
            try:
                if size > 2 * _MAX_BYTES:
                    raise ValueError(f"{size} bytes")
                super().restore_by_tag(tag, own, leftmost)  # type: ignore[no-untyped-call]
            except _MALFORMED as error:
                self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]
                _warn(error)


class Channel(redis.Channel):
    """Takes messages off queues.

    Whoever can write to Redis can put anything there. Kombu unpacks an entry before anything of
    Celery's guards it, and what it cannot unpack ends the worker; what Celery then cannot read
    stays unacknowledged, comes back at the next start, and ends that worker too.
    """

    QoS = QoS

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401 - kombu's signature
        client = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        client.set_response_callback("BRPOP", _bounded)
        return client

    def _brpop_read(self, **options: Any) -> Any:  # noqa: ANN401 - kombu's signature
        before = set(self.qos._delivered)  # noqa: SLF001 - kombu's own protocol of its classes
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except _MALFORMED as error:
            for tag in set(self.qos._delivered) - before:  # noqa: SLF001
                self.qos.ack(tag)
            _warn(error)
            raise Empty from error


class Transport(redis.Transport):
    """Redis, with the channel above.

    Every error that Redis answers with counts as a lost connection: Celery closes it and connects
    again until Redis takes writes. A Redis that is a replica for a moment, full, loading, busy with
    a script, part of a cluster that is down or asks for a password answers so.
    """

    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, RedisError)

    def _deliver(self, message: Any, queue: str) -> None:  # noqa: ANN401 - whatever lay in Redis
        _refuse_all_but_doorbells(message)
        super()._deliver(message, queue)  # type: ignore[no-untyped-call]


def harden() -> None:
    """Use this transport for `redis://` and `rediss://` from now on, in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


def _bounded(reply: list[bytes] | None) -> tuple[bytes, bytes] | None:
    """The answer to BRPOP, before anything of it is parsed."""
    if not reply:
        return None
    queue, message = reply
    if len(message) > _MAX_BYTES:
        raise ValueError(f"{len(message)} bytes")
    return queue, message


def _refuse_all_but_doorbells(message: dict[str, Any]) -> None:
    """Check a message before Celery unpacks it.

    A few bytes may unpack to gigabytes, and a task may name others to be called after it, so
    nothing passes but a plain message that names a job.

    Raises:
        ValueError: Or another error that is caught as malformed.
    """
    headers = message["headers"]
    if headers.get("compression") or message["properties"]["body_encoding"] != "base64":
        raise ValueError("not encoded as a doorbell is")
    if message["content-type"] != "application/json":
        raise ValueError(f"Refusing to deserialize {str(message['content-type'])[:80]}")
    if headers.get("eta") or headers.get("expires"):
        raise ValueError("a doorbell has no delay and does not expire")
    arguments, named, others = json.loads(base64.b64decode(message["body"], validate=True))
    body = MessageBody.model_validate(named)
    if arguments or any(others.values()):
        raise ValueError("a doorbell names a job and nothing else")
    if not (0 < body.run_id <= _LAST_ID and 0 < body.job_id <= _LAST_ID):
        raise ValueError("a doorbell names a job by its number")


def _warn(error: Exception) -> None:
    _log.warning(
        "dropped a malformed message (%s: %s): who else writes to this Redis?",
        type(error).__name__,
        str(error)[:200],
    )
