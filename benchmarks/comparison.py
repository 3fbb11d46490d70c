"""Cost of comparing Milvus with Postgres, where nothing changed and where all is read."""

import json
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import click
import numpy as np
import psutil
from sqlalchemy import text

from benchmarks.runs import add_index_run
from nightshift.schema.states import RunState
from nightshift.stack import Stack
from nightshift.stores.index import indexes
from nightshift.stores.index.comparison import compare
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs
from nightshift.stores.postgres.database import Database, copy_rows

_DIM = 64
_BATCH = 5_000


@click.command()
@click.option(
    "--vectors", "sizes", default="100000", show_default=True, help="How many, by commas."
)
@click.option("--milvus", "uri", help="A server of Milvus; without it, Milvus Lite.")
@click.option("--token", default="", help="Token of that server.")
@click.option("--dim", default=_DIM, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(sizes: str, uri: str | None, token: str, dim: int, as_json: bool) -> None:
    """Compare collections of VECTORS vectors; the baseline holds all keys in memory."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder))
        try:
            stack.up(0, dispatcher=False)
            urls = stack.urls()
            milvus = (uri, token) if uri else (urls.milvus_uri, urls.milvus_token)
            with Database(urls.database_url) as database, VectorStore(*milvus) as vectors:
                rows = [_measure(database, vectors, int(size), dim) for size in sizes.split(",")]
        finally:
            stack.down()
    if as_json:
        print(json.dumps(rows))
        return
    print("\t".join(rows[0]))
    for row in rows:
        print("\t".join(f"{value:.4g}" if isinstance(value, float) else str(value)
                        for value in row.values()))  # fmt: skip


def _measure(
    database: Database, vectors: VectorStore, size: int, dim: int
) -> dict[str, float | str]:
    index = _fill(database, vectors, size, dim)
    try:
        full_s, full_mb = _watched(lambda: _compare(database, vectors, index, 256))
        unchanged_s, unchanged_mb = _watched(lambda: _compare(database, vectors, index, 0))
        listed_s, listed_mb = _watched(lambda: set().union(*vectors.keys(index.collection)))
    finally:
        vectors.drop(index.collection)
    return {
        "vectors": size,
        "milvus": vectors.version,
        "seconds_unchanged": unchanged_s,
        "seconds_full": full_s,
        "seconds_all_keys": listed_s,
        "rss_mb_growth": unchanged_mb,
        "rss_mb_growth_full": full_mb,
        "rss_mb_growth_all_keys": listed_mb,
    }


def _compare(database: Database, vectors: VectorStore, index: IndexRow, n_read: int) -> None:
    differences = compare(database, vectors, index)
    assert (differences.n_read, differences.lost) == (n_read, []), differences


def _watched(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds that an action takes, and the most that this process grew by meanwhile, in MB."""
    process, ended = psutil.Process(), Event()
    before = process.memory_info().rss
    peaks = [before]

    def watch() -> None:
        while not ended.wait(0.02):
            peaks.append(max(peaks.pop(), process.memory_info().rss))

    watcher = Thread(target=watch)
    watcher.start()
    start = perf_counter()
    try:
        action()
        seconds = perf_counter() - start
    finally:
        ended.set()
        watcher.join()
    return seconds, (peaks[0] - before) / 1e6


def _fill(database: Database, vectors: VectorStore, size: int, dim: int) -> IndexRow:
    """An index of an item that had `size` contents, with their vectors."""
    run_id = add_index_run(database, size=1, n_queued=0)
    with database.begin() as connection:
        index = indexes.get_index(connection, runs.get_run(connection, run_id).index_id)
        connection.execute(  # the next size may take its name
            text("UPDATE catalog SET name = :name WHERE id = :id"),
            {"name": f"of {size} vectors", "id": index.catalog_id},
        )
        item_id = connection.execute(
            text("INSERT INTO item (catalog_id, external_id) VALUES (:c, 'thing') RETURNING id"),
            {"c": index.catalog_id},
        ).scalar_one()
        runs.set_run_state(connection, run_id, RunState.DONE)
    vectors.create(index.collection, dim=dim)
    random = np.random.default_rng(0)
    for start in range(0, size, _BATCH):
        keys = [_key(number) for number in range(start, min(size, start + _BATCH))]
        vectors.upsert(index.collection, keys, random.random((len(keys), dim), dtype=np.float32))
        vectors.flush(index.collection)
        columns = ("index_id", "key", "item_id", "content", "run_id")
        rows = ((index.id, key, item_id, bytes.fromhex(key), run_id) for key in keys)
        with database.begin() as connection:
            copy_rows(connection, "embedding", columns, rows)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE embedding"))
    vectors.load(index.collection)
    return index


def _key(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


if __name__ == "__main__":
    main()
