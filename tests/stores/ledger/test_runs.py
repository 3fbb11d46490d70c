"""Runs are read by kind; one that another release planned stops no other."""

import pytest
from sqlalchemy import text

from nightshift.schema.errors import NightshiftError
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.run_types import IndexRun, RerankRun
from tests.results.ranked import add_reference_run
from tests.stores.ledger_helpers import add_index_run


def test_a_run_has_the_type_of_its_kind(database):
    index_id, rerank_id = add_index_run(database), add_reference_run(database)

    with database.begin() as connection:
        index, rerank = runs.get_run(connection, index_id), runs.get_run(connection, rerank_id)

    assert isinstance(index, IndexRun)
    assert isinstance(rerank, RerankRun)
    assert index.params.parts == "text,image"
    assert (rerank.params.top_k, rerank.plan.pairs, rerank.plan.tied) == (5, 11, None)


def test_a_run_of_another_release_is_refused_by_itself_and_left_out_of_lists(database, caplog):
    known_id, unknown_id = add_index_run(database), add_index_run(database, n_jobs=2)
    with database.begin() as connection:
        connection.execute(
            text("""UPDATE run SET params = '{"depth": 3}' WHERE id = :run"""), {"run": unknown_id}
        )

        assert [run.id for run in runs.active_runs(connection)] == [known_id]
        assert f"run {unknown_id} was planned by another release" in caplog.text
        with pytest.raises(NightshiftError, match="plan it again"):
            runs.get_run(connection, unknown_id)
