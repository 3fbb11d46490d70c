"""Which models `doctor` looks at: those that a run or a search could need next."""

from sqlalchemy import text

from nightshift.schema.states import RunState, Stage
from nightshift.stores.index import indexes
from nightshift.stores.ledger import runs
from nightshift.stores.models import models_in_use
from tests.results.ranked import EMBEDDER, SCORER, add_reference_run
from tests.stores.ledger_helpers import FINGERPRINT, add_index_run


def _models_in_use(database):
    with database.begin() as connection:
        return [
            (entry.kind, entry.fingerprint, entry.waited_for) for entry in models_in_use(connection)
        ]


def _move(database, run_id, *, state=None, stage=None):
    with database.begin() as connection:
        if stage is not None:
            runs.move_to_stage(connection, run_id, stage)
        if state is not None:
            runs.set_run_state(connection, run_id, state)


def test_a_run_needs_the_models_of_its_stages_to_come(database):
    run_id = add_reference_run(database)
    results = {}
    for stage in (Stage.SEARCH, Stage.SCORE, Stage.RANK):
        _move(database, run_id, stage=stage)
        results[stage] = {model[:2] for model in _models_in_use(database) if model[2]}

    scorer, embedder = ("scorer", SCORER), ("embedder", EMBEDDER)
    assert results == {Stage.SEARCH: {scorer, embedder}, Stage.SCORE: {scorer}, Stage.RANK: set()}


def test_a_paused_run_still_waits_for_its_model_and_an_ended_one_does_not(database):
    run_id = add_index_run(database)
    _move(database, run_id, state=RunState.PAUSED)
    assert _models_in_use(database) == [("embedder", FINGERPRINT, True)]

    _move(database, run_id, state=RunState.CANCELLED)
    assert _models_in_use(database) == []


def test_a_model_is_named_once_with_all_its_users(database):
    run_id = add_index_run(database)
    with database.begin() as connection:
        index_id = connection.execute(text('SELECT id FROM "index"')).scalar_one()
        indexes.make_ready(connection, index_id)
        (model,) = models_in_use(connection)

    assert model.used_by == (f"run {run_id}", "index collection_1_v1")
    assert model.waited_for
