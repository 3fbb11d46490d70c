"""The start of a server and its count of writes, by which restarts and strangers are noticed."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import grpc
from pymilvus import MilvusClient
from pymilvus.grpc_gen import milvus_pb2

__all__ = ["ServerState", "read_server_state"]

_TIMEOUT_S = 10.0
_REQUEST = json.dumps({"metric_type": "system_info"})
#: Nodes that hold no vectors.
_WITHOUT_VECTORS = frozenset({"proxy", "indexnode"})
_REFUSED = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """The start of a server and its count of writes, as it tells them at one moment."""

    #: Another after each start of a node that holds vectors; None where the server does not tell.
    incarnation: str | None
    #: Calls since then that may have changed the collection; None where the server does not count.
    writes: int | None


def read_server_state(client: MilvusClient, collection: str) -> ServerState:
    """Ask for the nodes of a server: each has a number and a time of its own for each start."""
    stub = client._get_connection()._stub  # noqa: SLF001 - the library has no call for it
    try:
        answer = stub.GetMetrics(milvus_pb2.GetMetricsRequest(request=_REQUEST), timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() in _REFUSED:
            return ServerState(incarnation=None, writes=None)
        raise
    try:
        nodes = [node["infos"] for node in json.loads(answer.response)["nodes_info"]]
        return ServerState(incarnation=_incarnation(nodes), writes=_writes(nodes, collection))
    except (ValueError, KeyError, TypeError):  # a refusal, or an answer of another form
        return ServerState(incarnation=None, writes=None)


def _incarnation(nodes: Iterable[Mapping[str, Any]]) -> str | None:
    starts = []
    for node in nodes:
        if node["type"] in _WITHOUT_VECTORS:
            continue
        if node.get("has_error") or not node["created_time"]:
            return None
        starts.append(f"{node['type']} {node['id']} {node['created_time']}")
    return sha256("\n".join(sorted(starts)).encode()).hexdigest() if starts else None


def _writes(nodes: Iterable[Mapping[str, Any]], collection: str) -> int | None:
    """The count of our server of Milvus Lite, which says nothing of collections nobody wrote to."""
    for node in nodes:
        if "writes" in node:
            return int(node["writes"].get(collection, 0))
    return None
