"""Immutable vectors under content-derived keys, searched by cosine."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient, MilvusException

from nightshift.schema.errors import (
    ConfigurationError,
    ConflictError,
    NightshiftError,
)
from nightshift.stores.index.milvus.collections import (
    Metric,
    Shape,
    create_collection,
    ensure_index,
    rebuild_index,
    shape_of,
)
from nightshift.stores.index.milvus.connection import NOT_FOUND, Connection
from nightshift.stores.index.milvus.indexes import check_index_type, search_parameters
from nightshift.stores.index.milvus.reader import CALL_S, CollectionReader
from nightshift.stores.index.milvus.rows import (
    Hit,
    batches,
    check_keys,
    check_matrix,
    is_settled,
    ordered,
    through_ties,
)

__all__ = ["MAX_LIMIT", "VectorStore"]

Consistency = Literal["Strong", "Bounded", "Session", "Eventually"]

#: The most hits that Milvus returns for a query.
MAX_LIMIT = 16_384

_DELETE_KEYS, _HITS_PER_CALL, _QUERIES_PER_CALL = 4096, 100_000, 64
#: Asked for beyond the limit, so that most ties at its edge are seen at once.
_MARGIN = 16

_log = logging.getLogger(__name__)


class VectorStore(CollectionReader, AbstractContextManager["VectorStore"]):
    """Collections of (key, vector) rows that never change.

    A key names its vector's content, so writing it again changes nothing. Milvus Lite bears one
    writing process at a time, and the caller sees to that: `create`, `drop`, `load`, `upsert`,
    `flush` and `delete` write.

    Every method raises ServiceUnavailableError when Milvus stays away for longer than `patience_s`,
    and NotFoundError where the collection is not there.

    Args:
        uri: `http://host:port`.
        token: Empty where none is asked for.
        patience_s: How long an outage is waited out.
    """

    def __init__(self, uri: str, token: str = "", *, patience_s: float = 60.0) -> None:
        super().__init__(Connection(uri, token, patience_s))
        self._shapes: dict[str, Shape] = {}

    def create(
        self, collection: str, dim: int, index_type: str = "FLAT", metric: Metric = "COSINE"
    ) -> None:
        """Make a collection with its index, and load it; completes one that was cut short.

        Args:
            collection: Letters, digits and underscores.
            dim: Width of the vectors.
            index_type: FLAT is exact and its order reproducible; the others are neither.
            metric: IP is the same for L2-normalised vectors.

        Raises:
            ConfigurationError: For an index type that this server cannot be trusted with.
            ConflictError: When it exists with another width.
        """
        self._shapes.pop(collection, None)  # it may have been dropped since
        wanted = Shape(dim, check_index_type(index_type, lite=self.is_lite), metric)
        if not self.has(collection):
            self._run(create_collection, collection, wanted)
        if (width := self._shape(collection).dim) != dim:
            raise ConflictError(
                f"{collection} holds vectors of {width} numbers, not {dim}, so another "
                "database made it; drop it, or give each database a Milvus of its own"
            )
        self.load(collection)

    def drop(self, collection: str) -> None:
        """Delete a collection and the aliases that point to it; harmless where it is not there."""
        self._shapes.pop(collection, None)
        if self.has(collection):
            for alias in self.aliases(collection):
                self._run(MilvusClient.drop_alias, alias)
            self._run(MilvusClient.drop_collection, collection)

    def has(self, collection: str) -> bool:
        """Check whether there is a collection or alias of that name."""
        return bool(self._run(MilvusClient.has_collection, collection, timeout=CALL_S))

    def dim(self, collection: str) -> int:
        """Width of the vectors that a collection holds at this moment.

        Raises:
            ConflictError: When somebody else made it.
        """
        self._shapes.pop(collection, None)
        return self._shape(collection).dim

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        return sorted(self._run(MilvusClient.list_collections))

    def aliases(self, collection: str) -> list[str]:
        """The aliases that name a collection."""
        return list(self._run(MilvusClient.list_aliases, collection)["aliases"])

    def shape(self, collection: str) -> Shape:
        """The properties that a collection was created with.

        Raises:
            ConflictError: When another program made it.
        """
        return self._shape(collection)

    def set_alias(self, alias: str, collection: str) -> None:
        """Let `alias` name `collection`, and no other one."""
        try:
            self._run(MilvusClient.create_alias, collection, alias)
        except NightshiftError:  # it is there already, or the next line says what is wrong
            self._run(MilvusClient.alter_alias, collection, alias)
        self._shapes.pop(alias, None)

    def load(self, collection: str) -> bool:
        """Make a collection searchable; harmless where it is.

        A kill of Milvus Lite while it wrote an index leaves one that cannot be loaded. The
        vectors are intact, so the index is then built again: True where it was.
        """
        with self._connection.translated(collection):
            self._connection.call(ensure_index, collection)
            try:
                self._connection.call(MilvusClient.load_collection, collection)
            except MilvusException as error:
                if error.code == NOT_FOUND or not self.is_lite:
                    raise
                _log.warning("the index of %s is damaged: %s", collection, error.message)
                self._connection.call(rebuild_index, collection)
                self._connection.call(MilvusClient.load_collection, collection)
                return True
            return False

    def upsert(self, collection: str, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Write rows; harmless where they are there already.

        On a server they are durable when this returns, on Milvus Lite after `flush`.

        Args:
            collection: Its name.
            keys: Hexadecimal, at most 64 digits, distinct.
            vectors: *Shape:* (len(keys), dim), float32, finite.

        Raises:
            ConflictError: When shapes do not fit, or a value is not finite.
        """
        matrix = check_matrix(collection, vectors, self._shape(collection).dim)
        if len(keys) != len(matrix):
            raise ConflictError(f"{collection}: {len(keys)} keys for {len(matrix)} vectors")
        check_keys(keys)
        for batch in batches(keys, matrix):
            self._run(MilvusClient.upsert, collection, batch, timeout=CALL_S)

    def flush(self, collection: str) -> None:
        """Make written rows durable; a no-op on a server, whose log holds them already."""
        # A server also limits how often segments may be sealed by hand.
        if self.is_lite:
            self._run(MilvusClient.flush, collection)

    def search(
        self,
        collection: str,
        vectors: NDArray[np.float32],
        limit: int,
        *,
        consistency: Consistency = "Strong",
    ) -> list[list[Hit]]:
        """The nearest rows of each query, nearest first, and all that tie at the limit's edge.

        Args:
            collection: Its name, or an alias.
            vectors: *Shape:* (n, dim), float32.
            limit: At most 16,384.
            consistency: `Strong` sees everything written before.

        Returns:
            For each query the first `limit` hits and those behind them that are as near but for
            rounding, with distinct keys; fewer when there are no more. Which of more than 16,384
            equally near rows are returned is the server's affair.

        Raises:
            ConflictError: When the width does not fit.
            ConfigurationError: When the limit is too large.
        """
        if not 0 < limit <= MAX_LIMIT:
            raise ConfigurationError(f"a search may ask for 1 to {MAX_LIMIT} hits, not {limit}")
        matrix = check_matrix(collection, vectors, self._shape(collection).dim)
        step = max(1, min(_QUERIES_PER_CALL, _HITS_PER_CALL // limit))
        return [
            hits
            for start in range(0, len(matrix), step)
            for hits in self._search(collection, matrix[start : start + step], limit, consistency)
        ]

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        """Remove rows; harmless where they are not there."""
        check_keys(keys)
        for start in range(0, len(keys), _DELETE_KEYS):
            batch = list(keys[start : start + _DELETE_KEYS])
            self._when_loaded(MilvusClient.delete, collection, ids=batch, timeout=CALL_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _search(
        self, collection: str, block: NDArray[np.float32], limit: int, consistency: Consistency
    ) -> list[list[Hit]]:
        kind = self._shape(collection).index_type
        requested = min(limit + _MARGIN, MAX_LIMIT)
        while True:
            pages: Sequence[Any] = self._when_loaded(
                MilvusClient.search,
                collection,
                data=list(block),
                limit=requested,
                output_fields=["key"],
                search_params={"params": search_parameters(kind, requested)},
                consistency_level=consistency,
                timeout=CALL_S,
            )
            ranked = [ordered(hits) for hits in pages]
            if requested == MAX_LIMIT or all(
                is_settled(hits, limit, requested, len(returned))
                for hits, returned in zip(ranked, pages, strict=True)
            ):
                return [hits[: through_ties(hits, limit)] for hits in ranked]
            requested = min(2 * requested, MAX_LIMIT)

    def _shape(self, collection: str) -> Shape:
        if collection not in self._shapes:
            self._shapes[collection] = self._run(shape_of, collection)
        return self._shapes[collection]
