"""Vectors in Milvus, Lite or a server: the only package that speaks its protocol."""

from nightshift.stores.index.milvus.indexes import INDEX_TYPES, IndexType
from nightshift.stores.index.milvus.rows import TIE, Hit
from nightshift.stores.index.milvus.server_state import ServerState
from nightshift.stores.index.milvus.store import MAX_LIMIT, VectorStore

__all__ = ["INDEX_TYPES", "MAX_LIMIT", "TIE", "Hit", "IndexType", "ServerState", "VectorStore"]
