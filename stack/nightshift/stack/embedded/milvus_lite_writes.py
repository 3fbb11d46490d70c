"""Milvus Lite that says when it started and how often somebody wrote to a collection.

A server of Milvus says in its metrics when its nodes started. Milvus Lite has no metrics; it may
lose acknowledged vectors when it is killed, so those who trust what they read before must know.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2

__all__ = ["WatchedServicer"]

#: Calls that may change what a collection holds.
_WRITES = (
    "CreateCollection", "DropCollection", "TruncateCollection", "RenameCollection", "Insert",
    "Upsert", "Delete", "DropPartition",
)  # fmt: skip


class WatchedServicer(MilvusServicer):  # type: ignore[misc] # Milvus Lite is untyped
    """Answers the calls of Milvus Lite, counts the writes, and tells both in `GetMetrics`.

    Args:
        database: The open Milvus Lite.
    """

    def __init__(self, database: MilvusLite) -> None:
        super().__init__(database)
        self._id = uuid4().hex
        self._started_at = datetime.now(UTC).isoformat()
        self._n_writes: Counter[str] = Counter()
        self._counting = threading.Lock()
        for name in _WRITES:
            setattr(self, name, self._counted(getattr(self, name)))

    def GetMetrics(  # noqa: N802 - the name of the call
        self, _request: Message, _context: grpc.ServicerContext
    ) -> milvus_pb2.GetMetricsResponse:
        """Answer as a server does: one node, with its number, its start and its writes."""
        with self._counting:
            node = {
                "type": "milvus_lite",
                "id": self._id,
                "created_time": self._started_at,
                "writes": dict(self._n_writes),
            }
        return milvus_pb2.GetMetricsResponse(
            response=json.dumps({"nodes_info": [{"infos": node}]}), component_name="milvus_lite"
        )

    def _counted(self, write: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def counted(request: Message, context: grpc.ServicerContext) -> object:
            # Before the write: whoever sees its effect sees that it was counted.
            with self._counting:
                self._n_writes.update(self._written(request, context))
            return write(request, context)

        return counted

    def _written(self, request: Any, context: grpc.ServicerContext) -> set[str]:  # noqa: ANN401 - untyped
        """The collections that a call names, also by an alias."""
        names = {
            str(getattr(request, field))
            for field in ("collection_name", "oldName", "newName")
            if hasattr(request, field)
        }
        with suppress(Exception):  # there is none of that name; the call itself says so
            names.add(str(self._get_collection(request, context).name))
        return names
