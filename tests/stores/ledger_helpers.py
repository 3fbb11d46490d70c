"""A catalogue, an index and runs in an empty database, made the way the producers make them."""

from sqlalchemy import text

from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import IndexParams
from nightshift.schema.plans import IndexPlan
from nightshift.schema.records import TextPart
from nightshift.schema.states import Stage
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.ledger.new_runs import create_index_run
from nightshift.stores.models import upsert_model
from nightshift.stores.postgres.database import Database, copy_rows
from tests.catalog_rows import add_item

FINGERPRINT = "0123456789abcdef"


def add_catalog(database: Database, name: str = "things", n_items: int = 10) -> int:
    with database.begin() as connection:
        catalog_id = int(
            connection.execute(
                text("INSERT INTO catalog (name) VALUES (:name) RETURNING id"), {"name": name}
            ).scalar_one()
        )
        for number in range(n_items):
            add_item(connection, catalog_id, f"item-{number}", TextPart(text=f"thing {number}"))
    return catalog_id


def add_index_run(database: Database, *, n_jobs: int = 3, per_job: int = 4) -> int:
    """An index run with `n_jobs` embed jobs of `per_job` items each."""
    catalog_id = add_catalog(database, f"catalog-{n_jobs}-{per_job}", n_jobs * per_job)
    with database.begin() as connection:
        upsert_model(
            connection,
            fingerprint=FINGERPRINT,
            kind="embedder",
            spec="open_clip:test",
            card={},
            package_version="0",
        )
        index_id = int(
            connection.execute(
                text(
                    'INSERT INTO "index" (catalog_id, name, version, embedder, '
                    "embedder_fingerprint, parts, dim, collection) VALUES "
                    "(:c, 'default', 1, 'open_clip:test', :f, 'text', 4, "
                    "'collection_' || :c || '_v1') "
                    "RETURNING id"
                ),
                {"c": catalog_id, "f": FINGERPRINT},
            ).scalar_one()
        )
        items = [
            int(row.id)
            for row in connection.execute(
                text("SELECT id FROM item WHERE catalog_id = :c ORDER BY id"), {"c": catalog_id}
            )
        ]
        run_id = create_index_run(
            connection,
            catalog_id=catalog_id,
            revision=1,
            index_id=index_id,
            params=IndexParams(),
            plan=IndexPlan(),
        )
        jobs = [
            BlockPayload(ids=tuple(items[start : start + per_job]))
            for start in range(0, len(items), per_job)
        ]
        add_jobs(connection, run_id, Stage.EMBED, f"embed.{FINGERPRINT}", jobs)
    return run_id


def job_row(database: Database, run_id: int, job_id: int):
    with database.begin() as connection:
        return connection.execute(
            text("SELECT * FROM job WHERE run_id = :r AND id = :j"), {"r": run_id, "j": job_id}
        ).one()


def expire(database: Database, run_id: int, job_id: int) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE job SET lease_until = clock_timestamp() - interval '1 s' "
                "WHERE run_id = :r AND id = :j"
            ),
            {"r": run_id, "j": job_id},
        )


def make_due(database: Database, run_id: int) -> None:
    """Let back-off be over."""
    with database.begin() as connection:
        connection.execute(
            text("UPDATE job SET not_before = '-infinity' WHERE run_id = :r"), {"r": run_id}
        )


__all__ = ["FINGERPRINT", "add_catalog", "add_index_run", "copy_rows", "expire", "job_row",
           "make_due"]  # fmt: skip
