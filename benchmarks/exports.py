"""Speed and memory of what reads a whole run, or all that there is: exports and `doctor`.

Each reader is a process of its own, on an embedded stack that is filled with as many rows as asked
for. Its memory is the most that it held at any time, with all that it imports.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import perf_counter, sleep

import click
import psutil
from sqlalchemy import text

from benchmarks.runs import add_rerank_run
from nightshift.api import connect
from nightshift.cli.embedded_stack import open_stack
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.query_import import import_queries
from nightshift.results.export import FORMATS, export
from nightshift.schema.settings import Settings
from nightshift.schema.states import DecidedBy
from nightshift.stack import Stack
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.writes import RankingRow, write_rankings

_DEPTH = 100
_QUERIES_AT_A_TIME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The speed and the memory of one reader."""

    what: str
    rows: int
    rows_per_s: float
    rss_mb: float


@click.command()
@click.option("--rows", default=300_000, show_default=True, help="Of the run that is exported.")
@click.option("--items", default=2_000, show_default=True, help="Of the catalogue.")
@click.option("--json", "as_json", is_flag=True)
def main(rows: int, items: int, as_json: bool) -> None:
    """Export a run of ROWS rankings in every format, and let `doctor` look at it."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        stack = open_stack(Path(folder))
        try:
            stack.up(0)
            readings = [asdict(reading) for reading in _measure(stack, Path(folder), rows, items)]
        finally:
            stack.down()
    print(json.dumps(readings) if as_json else "\n".join(map(str, readings)))


def _measure(stack: Stack, folder: Path, n_rows: int, n_items: int) -> Iterator[Reading]:
    with Database(stack.urls().database_url) as database:
        run_id = _add_run(database, folder, n_rows // _DEPTH, n_items)
    for file_format in FORMATS:
        argv = ["-m", "benchmarks.exports", "export", str(run_id), file_format]
        said, rss_mb, _ = _run(stack, argv)
        written, seconds = json.loads(said)
        yield Reading(
            what=f"export {file_format}",
            rows=written,
            rows_per_s=round(written / seconds, 1),
            rss_mb=rss_mb,
        )
    _, rss_mb, seconds = _run(stack, ["-P", "-m", "nightshift.cli.main", "doctor", "--json"])
    yield Reading(what="doctor", rows=n_rows, rows_per_s=round(n_rows / seconds, 1), rss_mb=rss_mb)


def _add_run(database: Database, folder: Path, n_queries: int, n_items: int) -> int:
    """A run whose queries have rankings of a hundred items each, with all columns filled."""
    for name, count in (("items", n_items), ("queries", n_queries)):
        with (folder / f"{name}.jsonl").open("w") as lines:
            lines.writelines(
                json.dumps({"id": f"{name}-{n}", "text": f"{name} number {n}"}) + "\n"
                for n in range(count)
            )
    import_catalog(database, "texts", str(folder / "items.jsonl"))
    queries = import_queries(database, str(folder / "queries.jsonl"))
    run_id = add_rerank_run(database, "texts", queries.query_set_id)
    with database.begin() as connection:
        item_ids = list(connection.scalars(text("SELECT id FROM item ORDER BY id")))
        query_ids = list(connection.scalars(text("SELECT id FROM query ORDER BY id")))
    random = Random(0)
    for first in range(0, len(query_ids), _QUERIES_AT_A_TIME):
        with database.begin() as connection:
            write_rankings(
                connection,
                (
                    _row(run_id, query_id, item_id, rank, random)
                    for query_id in query_ids[first : first + _QUERIES_AT_A_TIME]
                    for rank, item_id in enumerate(random.sample(item_ids, _DEPTH), 1)
                ),
            )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return run_id


def _row(run_id: int, query_id: int, item_id: int, rank: int, random: Random) -> RankingRow:
    return RankingRow(
        run_id=run_id,
        query_id=query_id,
        final_rank=rank,
        item_id=item_id,
        coarse_rank=rank,
        coarse_score=random.random(),
        margin=random.uniform(-5, 5),
        probability=random.random(),
        entropy=random.random(),
        fired=False,
        fired_layer=None,
        tie_group=rank,
        tie_size=1,
        decided_by=DecidedBy.SCORE,
        scorer_fingerprint="1" * 16,
    )


def _run(stack: Stack, argv: list[str]) -> tuple[str, float, float]:
    """Run Python with some arguments: its output, its most memory in MB, and its seconds."""
    environment = os.environ | {"NIGHTSHIFT_DATA_DIR": str(stack.data_dir)}
    peak_mb = 0.0
    began = perf_counter()
    with subprocess.Popen(
        [sys.executable, *argv], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak_mb = max(peak_mb, watched.memory_info().rss / 2**20)
            sleep(0.02)
        assert process.stdout is not None
        return process.stdout.read(), round(peak_mb, 1), perf_counter() - began


def _export(run_id: int, file_format: str) -> None:
    """Export a run to nowhere, and print how many rows it has and the seconds that it took."""
    with connect(settings=Settings()) as nightshift, Path(os.devnull).open("wb") as stream:
        began = perf_counter()
        written = export(nightshift.results(run_id), file_format, stream)
        print(json.dumps([written, perf_counter() - began]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["export"]:
        _export(int(sys.argv[2]), sys.argv[3])
    else:
        main()
