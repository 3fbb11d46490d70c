"""The server of the embedded Milvus Lite: every call needs the token, every name is an identifier.

Milvus Lite itself does not authenticate, and makes directories of the names in requests: any client
of its port could delete what the owner of the process may delete.
"""

import logging
import os
import re
import signal
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hmac import compare_digest
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2_grpc, schema_pb2

from nightshift.stack.embedded.milvus_lite_writes import WatchedServicer

__all__ = ["VARIABLE", "bad_names", "main"]

#: The token is passed in the environment: every user can read a command line.
VARIABLE = "NIGHTSHIFT_MILVUS_TOKEN"

_log = logging.getLogger(__name__)

_THREADS = 10
_MESSAGE_BYTES = 256 * 2**20
_OPTIONS = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    # Otherwise two servers could share a port, and each would get some of the calls.
    ("grpc.so_reuseport", 0),
    # pymilvus pings every 10 s, also between calls. By default a server allows one ping in 5 min
    # and closes a connection that sends more (ENHANCE_YOUR_CALM, too_many_pings).
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # On a busy machine several pings are read together, as if they were sent in a burst.
    ("grpc.http2.max_ping_strikes", 0),
]

#: Fields of requests that hold names: `collection_name`, `partition_names`, `newName`, `alias`, …
_NAME_FIELD = re.compile(r"(?:.*_)?(?:names?|alias|namespace)|\w*Names?|username")
#: Names that may become part of a path. `$meta` is Milvus' name for fields beyond the schema.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}|\$meta|")
#: Requests that carry a schema in serialised form → its message type.
_PACKED_SCHEMAS: dict[str, type[Message]] = {
    "CreateCollectionRequest": schema_pb2.CollectionSchema,
    "AddCollectionFieldRequest": schema_pb2.FieldSchema,
}


class _TokenGuard(grpc.ServerInterceptor):  # type: ignore[misc] # grpc is untyped
    """Refuses calls without the token, and names that are not identifiers."""

    def __init__(self, token: str) -> None:
        self._expected = b64encode(token.encode())

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        # Known and unknown methods are refused in the same way, so that a client without the token
        # learns nothing.
        if not self._knows_token(handler_call_details.invocation_metadata):
            return _REFUSAL
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _with_checked_names(handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _knows_token(self, metadata: Any) -> bool:  # noqa: ANN401 - as above
        given = [value for key, value in metadata or () if key == "authorization"]
        value = given[0] if len(given) == 1 else ""
        return compare_digest(value.encode() if isinstance(value, str) else value, self._expected)


def main() -> None:
    """Run the server; the arguments are DIRECTORY, HOST and PORT."""
    directory, host, port = sys.argv[1:]
    # Background jobs of a shell ignore SIGINT, and children inherit that: without this line the
    # server could not be stopped cleanly.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(0o077)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    _log.setLevel(logging.INFO)
    token = os.environ.pop(VARIABLE, "")
    if not token:
        raise SystemExit(f"{VARIABLE} is not set: start this server by `nightshift up`")
    database = MilvusLite(str(Path(directory)))
    server = grpc.server(
        ThreadPoolExecutor(_THREADS), interceptors=(_TokenGuard(token),), options=_OPTIONS
    )
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(WatchedServicer(database), server)
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    _log.info("Milvus Lite listens on %s:%s", host, port)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        _log.info("Shutting down...")
    finally:
        server.stop(grace=5).wait()
        database.close()


def bad_names(request: Message) -> list[str]:
    """The fields of a request, at any depth, that hold names which are not identifiers."""
    return sorted(set(_bad_names(request)))


def _refuse(_request: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure: the token is wrong")


# A stream handler refuses before it reads the message, which may be 256 MiB long. The caller sees
# no difference.
_REFUSAL = grpc.stream_stream_rpc_method_handler(_refuse)


def _with_checked_names(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    def checked(request: Message, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - as above
        if fields := bad_names(request):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{', '.join(fields)}: use letters, digits and underscores, at most 255",
            )
        return behaviour(request, context)

    return checked


def _bad_names(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            if not field.message_type.GetOptions().map_entry:
                for part in (value,) if isinstance(value, Message) else value:
                    yield from _bad_names(part)
        elif field.type == field.TYPE_STRING and _NAME_FIELD.fullmatch(field.name):
            names = (value,) if isinstance(value, str) else value
            if not all(_IDENTIFIER.fullmatch(name) for name in names):
                yield field.name
        elif field.name == "schema" and message.DESCRIPTOR.name in _PACKED_SCHEMAS:
            yield from _bad_names(_PACKED_SCHEMAS[message.DESCRIPTOR.name].FromString(value))


if __name__ == "__main__":
    main()
