import pytest
from sqlalchemy import text

from nightshift.schema.states import Stage, SubjectKind
from nightshift.stores.failures import record_failure
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.ledger import receipts, runs
from nightshift.stores.ledger.claims import Ledger
from tests.stores.ledger_helpers import add_index_run


@pytest.fixture
def ledger(database):
    return Ledger(database, worker_id="worker-a", lease_s=30, max_attempts=2)


def _lost(database, run_id: int) -> int:
    with database.begin() as connection:
        return receipts.count_lost(connection, runs.get_run(connection, run_id))


def test_a_job_that_is_done_without_its_results_has_lost_them(database, ledger):
    run_id = add_index_run(database, n_jobs=3, per_job=4)
    first, second = ledger.claim(run_id, 1), ledger.claim(run_id, 2)
    assert first is not None
    assert second is not None

    with ledger.finish(first):
        pass
    with ledger.finish(second) as connection:
        run = runs.get_run(connection, run_id)
        keys = [(item, f"{item:064x}") for item in second.payload.ids[:2]]
        write_embeddings(connection, index_id=run.index_id, run_id=run_id, keys=keys)
        name = connection.execute(
            text("SELECT external_id FROM item WHERE id = :id"), {"id": second.payload.ids[2]}
        ).scalar_one()
        record_failure(
            connection,
            run_id=run_id,
            stage=Stage.EMBED.value,
            subject_kind=SubjectKind.ITEM,
            subject_id=name,
            reason="image_unreadable",
            message="",
        )

    assert _lost(database, run_id) == 4 + 1


def test_an_open_job_has_lost_nothing(database, ledger):
    run_id = add_index_run(database)
    ledger.claim(run_id, 1)

    assert _lost(database, run_id) == 0
