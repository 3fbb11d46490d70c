"""Runs of as many jobs or rankings as a measurement wants, with nothing to compute in them."""

from sqlalchemy import text

from nightshift.schema.params import IndexParams, RerankParams
from nightshift.schema.plans import IndexPlan, RerankPlan
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_index_run, create_rerank_run
from nightshift.stores.models import upsert_model
from nightshift.stores.postgres.database import Database

__all__ = ["EMBED_QUEUE", "add_index_run", "add_rerank_run"]

_FINGERPRINT = "0" * 16
EMBED_QUEUE = f"embed.{_FINGERPRINT}"
#: Jobs a second that the finished part of a run is said to have been done at.
_PAST_RATE = 20


def add_index_run(database: Database, size: int, *, n_queued: int) -> int:
    """An index run of `size` jobs, all but the last `n_queued` of them done."""
    with database.begin() as connection:
        upsert_model(
            connection,
            fingerprint=_FINGERPRINT,
            kind="embedder",
            spec="open_clip:benchmark",
            card={},
            package_version="0",
        )
        catalog_id = connection.execute(
            text("INSERT INTO catalog (name) VALUES (:name) RETURNING id"), {"name": f"of {size}"}
        ).scalar_one()
        index_id = connection.execute(
            text(
                'INSERT INTO "index" (catalog_id, name, version, embedder, embedder_fingerprint, '
                "parts, dim, collection) VALUES (:catalog, 'default', 1, 'open_clip:benchmark', "
                ":fingerprint, 'text', 4, 'collection_' || :catalog) RETURNING id"
            ),
            {"catalog": catalog_id, "fingerprint": _FINGERPRINT},
        ).scalar_one()
        run_id = create_index_run(
            connection,
            catalog_id=catalog_id,
            revision=0,
            index_id=index_id,
            params=IndexParams(),
            plan=IndexPlan(),
        )
        connection.execute(
            text(
                """
                INSERT INTO job (run_id, id, stage, queue, payload, n_units, state, attempt, token,
                    started_at, finished_at)
                SELECT :run, n, 'embed', :queue, jsonb_build_object('ids', jsonb_build_array(n)),
                    256, CASE WHEN n <= :done THEN 'done' ELSE 'queued' END,
                    (n <= :done)::int, (n <= :done)::int,
                    CASE WHEN n <= :done THEN at - interval '10 s' END,
                    CASE WHEN n <= :done THEN at END
                FROM generate_series(1, :size) AS n
                CROSS JOIN LATERAL (
                    SELECT now() - make_interval(secs => (:done - n)::float / :rate) AS at) AS past
                """
            ),
            {
                "run": run_id,
                "queue": EMBED_QUEUE,
                "size": size,
                "done": size - n_queued,
                "rate": _PAST_RATE,
            },
        )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM ANALYZE job_r{run_id}"))
    return run_id


def add_rerank_run(database: Database, catalog: str, query_set_id: int) -> int:
    """A re-ranking run that is done, without a job; its rankings are the caller's to write."""
    with database.begin() as connection:
        for kind, fingerprint in (("embedder", "0" * 16), ("scorer", "1" * 16)):
            upsert_model(
                connection,
                fingerprint=fingerprint,
                kind=kind,
                spec=f"hf:benchmark-{kind}",
                card={},
                package_version="0",
            )
        catalog_id, index_id = connection.execute(
            text(
                'INSERT INTO "index" (catalog_id, name, version, embedder, embedder_fingerprint, '
                "parts, dim, collection) SELECT id, 'default', 1, 'hf:benchmark-embedder', "
                ":fingerprint, 'text', 4, 'collection_' || id FROM catalog WHERE name = :name "
                "RETURNING catalog_id, id"
            ),
            {"fingerprint": "0" * 16, "name": catalog},
        ).one()
        run_id = create_rerank_run(
            connection,
            catalog_id=catalog_id,
            index_id=index_id,
            query_set_id=query_set_id,
            scorer="hf:benchmark-scorer",
            scorer_fingerprint="1" * 16,
            params=RerankParams(query_parts="text", item_parts="text"),
            plan=RerankPlan(),
            stage=Stage.RANK,
        )
        runs.set_run_state(connection, run_id, RunState.DONE)
    return run_id
