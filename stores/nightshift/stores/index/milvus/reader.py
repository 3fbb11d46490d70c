"""Reading collections by ranges of the key, and what the server says of itself."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient, MilvusException

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.index.milvus.collections import VECTOR
from nightshift.stores.index.milvus.connection import NOT_LOADED, Connection
from nightshift.stores.index.milvus.rows import check_keys, key_expression, key_ranges
from nightshift.stores.index.milvus.server_state import ServerState, read_server_state

__all__ = ["CALL_S", "CollectionReader"]

#: Seconds that one call may take; loading, indexing and flushing take as long as they take.
CALL_S = 120.0
#: Counts that are asked for at once.
_COUNTS_AT_ONCE = 4

_Consistency = Literal["Strong", "Bounded"]


class CollectionReader:
    """The part of `VectorStore` that writes nothing.

    Args:
        connection: To the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def version(self) -> str:
        """The version that the server reports; of Milvus Lite with `milvus_lite-` before it."""
        return str(self._run(MilvusClient.get_server_version))

    @property
    def is_lite(self) -> bool:
        """True if the server is Milvus Lite."""
        return self.version.startswith("milvus_lite")

    def state(self, collection: str) -> ServerState:
        """The start of the server, and its count of writes to a collection."""
        state: ServerState = self._run(read_server_state, collection)
        return state

    def count(self, collection: str) -> int:
        """All rows; a row that is there twice counts twice."""
        return self._count(collection, "", "Strong")

    def count_by_prefix(self, collection: str, prefixes: Sequence[str]) -> list[int]:
        """The rows whose keys begin with each prefix, as they were after the last `count` or later.

        Args:
            collection: Its name.
            prefixes: Hexadecimal digits.
        """
        check_keys(prefixes)
        # A strong count waits for the server's next time tick, each of them about 0.2 s.
        counts = partial(self._count, collection, consistency="Bounded")
        with ThreadPoolExecutor(_COUNTS_AT_ONCE) as threads:
            return list(threads.map(counts, [f'key like "{prefix}%"' for prefix in prefixes]))

    def keys_between(self, collection: str, start: str, end: str | None) -> list[str]:
        """The keys from `start` on and before `end`, sorted, each as often as it is there.

        Args:
            collection: Its name.
            start: Hexadecimal digits, or an empty text for the first key.
            end: Hexadecimal digits, or None to read to the last key.
        """
        rows = self._query(collection, key_expression(start, end), "key")
        return sorted(row["key"] for row in rows)

    def keys(self, collection: str, batch_size: int = 32_768) -> Iterator[list[str]]:
        """All keys, in batches; a key may come twice between a crash and the next `flush`.

        Asked for by ranges of the key, which as a digest is spread evenly: the library's own
        iterator yields nothing, without an error, on older servers.

        Args:
            collection: Its name.
            batch_size: About so many keys come in a batch.
        """
        for rows in self._pages(collection, batch_size, "key"):
            yield [row["key"] for row in rows]

    def rows(
        self, collection: str, batch_size: int = 2048
    ) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """All keys, each once, with their vectors; in batches as `keys`."""
        for page in self._pages(collection, batch_size, "key", VECTOR):
            # Between a crash and the next flush a row may come twice.
            rows = {row["key"]: row[VECTOR] for row in page}
            yield list(rows), np.asarray(list(rows.values()), dtype=np.float32)

    def _run(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - pymilvus is untyped
        subject = str(arguments[0]) if arguments else "Milvus"
        with self._connection.translated(subject):
            return self._connection.call(action, *arguments, **options)

    def _when_loaded(self, action: Callable[..., Any], collection: str, **options: Any) -> Any:  # noqa: ANN401 - as above
        """Run what needs a loaded collection: a restart of Milvus Lite releases all."""
        with self._connection.translated(collection):
            for attempt in range(10):
                try:
                    return self._connection.call(action, collection, **options)
                except MilvusException as error:
                    if error.code != NOT_LOADED:
                        raise
                # While one client loads, another's collection counts as released for a moment.
                time.sleep(0.1 * attempt)
                self._load_as_reader(collection)
            return self._connection.call(action, collection, **options)

    def _load_as_reader(self, collection: str) -> None:
        try:
            self._connection.call(MilvusClient.load_collection, collection)
        except MilvusException as error:
            # Mending is a write, and a reader may not be the one that writes.
            raise ServiceUnavailableError(
                f"{collection} cannot be loaded until its index is mended; a search stage and "
                f"`nightshift doctor --repair` mend it: {error.message}",
                "milvus",
            ) from error

    def _pages(self, collection: str, batch_size: int, *fields: str) -> Iterator[list[Any]]:
        for expression in key_ranges(-(-self.count(collection) // batch_size)):
            if rows := self._query(collection, expression, *fields):
                yield rows

    def _count(self, collection: str, expression: str, consistency: _Consistency) -> int:
        [row] = self._query(collection, expression, "count(*)", consistency=consistency)
        return int(row["count(*)"])

    def _query(
        self,
        collection: str,
        expression: str,
        *fields: str,
        consistency: _Consistency = "Strong",
    ) -> list[Any]:
        rows = self._when_loaded(
            MilvusClient.query,
            collection,
            filter=expression,
            output_fields=list(fields),
            consistency_level=consistency,
            timeout=CALL_S,
        )
        return list(rows)
