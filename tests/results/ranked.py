"""A finished re-ranking run in a database, written the way workers write it."""

import json
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from random import Random

from PIL import Image
from sqlalchemy import Connection, text

from nightshift.schema.identity import content_hashes
from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import RerankParams
from nightshift.schema.plans import RerankPlan
from nightshift.schema.records import ImagePart, Part, TextPart
from nightshift.schema.states import Stage
from nightshift.scoring.calibration import CalibrationStats, observe_query
from nightshift.scoring.tie_break import break_ties
from nightshift.stores.catalog.contents import parts_to_json
from nightshift.stores.ledger.claims import Ledger
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.models import upsert_model
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.writes import RankingRow, write_calibration, write_rankings
from tests.catalog_rows import add_item

EMBEDDER, SCORER = "e" * 16, "5c0e" * 4


@dataclass(frozen=True)
class Scored:
    """One candidate as coarse search and scorer left it; a None margin failed."""

    item: str
    margin: float | None
    entropy: float = 0.1
    fired_layer: int | None = None


#: By query, in coarse order. The relevant items are those of `QRELS`.
LISTS = {
    # The relevant item is brought up from the third place.
    "q1": [Scored("i1", -2.0), Scored("i2", 0.5), Scored("i3", 4.0, 0.1, 7)],
    # Two tie at 0.99…: the less entropic wins, though its exact score is lower.
    "q2": [Scored("i4", 6.0, 0.30), Scored("i5", 5.5, 0.02), Scored("i6", -1.0)],
    # Scoring one pair failed, so it goes last.
    "q3": [Scored("i2", None), Scored("i1", -0.5), Scored("i7", 1.5, 0.4, 5)],
    # Ids that would break careless formats.
    'q,"4"\t': [Scored('i "8", of\tthree', 2.0), Scored("i1", 1.0)],
}
QRELS = {"q1": {"i3": 1}, "q2": {"i5": 2, "i6": 1}, "q3": {"i2": 1}, "q5": {"i1": 1}}


def add_reference_run(database: Database, image_folder: Path | None = None) -> int:
    """`LISTS`, judged by `QRELS`; one more query, q5, was not ranked."""
    with database.begin() as connection:
        run_id, queries, items = _add_run(connection, [*LISTS, "q5"], _items(), image_folder)
        jobs = [tuple(queries[name] for name in names) for names in (["q1", "q2"], list(LISTS)[2:])]
        add_jobs(
            connection,
            run_id,
            Stage.RANK,
            "rank",
            [BlockPayload(ids=ids) for ids in jobs],
        )
    names = {row_id: name for name, row_id in queries.items()}
    ledger = Ledger(database, worker_id="w", lease_s=60, max_attempts=3)
    for number, ids in enumerate(jobs, 1):
        claim = ledger.claim(run_id, number)
        assert claim is not None
        with ledger.finish(claim) as connection:
            statistics = []
            for query_id in ids:
                rows, stats = _rank(run_id, query_id, names[query_id], items)
                write_rankings(connection, rows)
                statistics.append(stats)
            merged = reduce(CalibrationStats.merge, statistics)
            write_calibration(connection, run_id=run_id, job_id=number, statistics=merged.to_json())
    return run_id


def add_large_run(database: Database, n_queries: int, depth: int) -> int:
    """A run of `n_queries` × `depth` ranking rows."""
    rng = Random(0)
    with database.begin() as connection:
        names = [f"i{number}" for number in range(depth)]
        run_id, queries, items = _add_run(
            connection, [f"q{number}" for number in range(n_queries)], names, None
        )
        write_rankings(
            connection,
            (
                _row(run_id, query_id, items[names[rank]], rank + 1, rank + 1, rng.random())
                for query_id in queries.values()
                for rank in range(depth)
            ),
        )
    return run_id


def _rank(
    run_id: int, query_id: int, name: str, items: dict[str, int]
) -> tuple[list[RankingRow], CalibrationStats]:
    candidates = LISTS[name]
    nan = float("nan")
    placements = break_ties(
        [nan if c.margin is None else c.margin for c in candidates],
        [c.entropy for c in candidates],
        list(range(1, len(candidates) + 1)),
    )
    rows = [
        RankingRow(
            run_id=run_id,
            query_id=query_id,
            final_rank=place.final_rank,
            item_id=items[candidate.item],
            coarse_rank=rank,
            coarse_score=1 - rank / 10,
            margin=candidate.margin,
            probability=place.probability,
            entropy=None if candidate.margin is None else candidate.entropy,
            fired=None if candidate.margin is None else candidate.fired_layer is not None,
            fired_layer=candidate.fired_layer,
            tie_group=place.tie_group,
            tie_size=place.tie_size,
            decided_by=place.decided_by,
            scorer_fingerprint=SCORER,
        )
        for rank, (candidate, place) in enumerate(zip(candidates, placements, strict=True), 1)
    ]
    judged = QRELS.get(name)
    stats = observe_query(
        placements,
        entropies=[c.entropy for c in candidates],
        fired_layers=[c.fired_layer for c in candidates],
        relevant=None if judged is None else [c.item in judged for c in candidates],
    )
    return rows, stats


def _row(
    run_id: int, query_id: int, item_id: int, final: int, coarse: int, margin: float
) -> RankingRow:
    return RankingRow(
        run_id=run_id,
        query_id=query_id,
        final_rank=final,
        item_id=item_id,
        coarse_rank=coarse,
        coarse_score=0.5,
        margin=margin,
        probability=0.5,
        entropy=0.1,
        fired=False,
        fired_layer=None,
        tie_group=final,
        tie_size=1,
        decided_by="score",
        scorer_fingerprint=SCORER,
    )


def _items() -> list[str]:
    return sorted({candidate.item for candidates in LISTS.values() for candidate in candidates})


def _add_run(
    connection: Connection, queries: list[str], items: list[str], image_folder: Path | None
) -> tuple[int, dict[str, int], dict[str, int]]:
    """A rerank run; row ids of its queries and items by name."""
    _add_models(connection)
    catalog_id = _insert(connection, "catalog", name="things")
    set_id = _insert(connection, "query_set", name="questions", content_hash=b"0")
    item_ids = {
        name: add_item(connection, catalog_id, name, *_parts(name, image_folder)) for name in items
    }
    query_ids = {name: _add_query(connection, set_id, name) for name in queries}
    for query, judged in QRELS.items():
        for item, relevance in judged.items():
            connection.execute(
                text("INSERT INTO qrel VALUES (:set, :query, :item, :relevance)"),
                {"set": set_id, "query": query, "item": item, "relevance": relevance},
            )
    index_id = _insert(
        connection, "index", catalog_id=catalog_id, name="default", version=1, dim=4,
        embedder="open_clip:test", embedder_fingerprint=EMBEDDER, parts="text,image",
        collection="c_v1",
    )  # fmt: skip
    run_id = create_rerank_run(
        connection,
        stage=Stage.RANK,
        catalog_id=catalog_id,
        revision=1,
        index_id=index_id,
        query_set_id=set_id,
        scorer="hf:test",
        scorer_fingerprint=SCORER,
        params=RerankParams(query_parts="text", item_parts="image"),
        plan=RerankPlan(queries=len(queries), pairs=11, reused=1, to_score=10, groups=4),
    )
    return run_id, query_ids, item_ids


def _add_models(connection: Connection) -> None:
    for fingerprint, kind, spec in (
        (EMBEDDER, "embedder", "open_clip:test"),
        (SCORER, "scorer", "hf:test"),
    ):
        upsert_model(
            connection,
            fingerprint=fingerprint,
            kind=kind,
            spec=spec,
            card={"weights": "abc"},
            package_version="0.1",
        )


def _parts(name: str, image_folder: Path | None) -> tuple[Part, ...]:
    if image_folder is None:
        return (TextPart(text=f"text of {name}"),)
    path = image_folder / f"{len(list(image_folder.iterdir()))}.png"
    Image.new("RGB", (40, 30), "teal").save(path)
    return ImagePart(uri=str(path)), TextPart(text=f"text of {name}")


def _add_query(connection: Connection, set_id: int, name: str) -> int:
    parts = _parts(name, None)
    hashes = content_hashes(parts)
    return _insert(
        connection, "query", query_set_id=set_id, external_id=name,
        parts=json.dumps(parts_to_json(parts)), text_hash=hashes.text, image_hash=hashes.image,
        content_hash=hashes.both,
    )  # fmt: skip


def _insert(connection: Connection, table: str, **values: object) -> int:
    columns = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    return int(
        connection.execute(
            text(f'INSERT INTO "{table}" ({columns}) VALUES ({places}) RETURNING id'), values
        ).scalar_one()
    )
