import pytest
from sqlalchemy import text

from nightshift.results.verify import verify
from nightshift.schema.states import RunState
from nightshift.stores.ledger import runs
from tests.catalog_rows import ITEMS
from tests.results.ranked import add_reference_run
from tests.stores.ledger_helpers import add_index_run


def _embed(database, run_id, n_items):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO embedding (index_id, item_id, key, content, run_id) "
                "SELECT \"index\".id, item.id, 'key-' || item.id, text_hash, :r "
                f'FROM {ITEMS} AS item, "index" ORDER BY item.id LIMIT :n'
            ),
            {"r": run_id, "n": n_items},
        )


def _fail(database, run_id, item):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message) "
                "VALUES (:r, 'embed', 'item', :i, 'image_missing', 'gone')"
            ),
            {"r": run_id, "i": item},
        )


def _end(database, run_id):
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.DONE)


def test_a_run_with_a_result_or_a_reason_for_every_item_is_complete(database):
    run_id = add_index_run(database, n_jobs=2, per_job=2)
    _embed(database, run_id, 3)
    _fail(database, run_id, "item-3")
    _end(database, run_id)

    receipt = verify(database, run_id)

    (items,) = receipt.balances
    assert (items.expected, items.done, items.failed, items.missing) == (4, 3, 1, 0)
    assert receipt.complete


def test_a_lost_item_is_named(database):
    run_id = add_index_run(database, n_jobs=2, per_job=2)
    _embed(database, run_id, 3)
    _end(database, run_id)

    receipt = verify(database, run_id)

    assert not receipt.complete
    assert [gap.subject_id for gap in receipt.gaps] == ["item-3"]


def test_a_run_that_is_not_done_is_not_complete(database):
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    _embed(database, run_id, 2)

    assert not verify(database, run_id).complete


def test_what_a_cancelled_run_had_not_done_is_skipped_not_lost(database):
    run_id = add_index_run(database, n_jobs=2, per_job=2)
    _embed(database, run_id, 1)
    _fail(database, run_id, "item-3")
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.CANCELLED)

    receipt = verify(database, run_id)

    (items,) = receipt.balances
    assert (items.done, items.failed, items.skipped, items.missing) == (1, 1, 2, 0)
    assert not receipt.complete, "it was not done"


def test_the_digest_changes_with_the_results(database):
    run_id = add_index_run(database, n_jobs=1, per_job=2)
    _embed(database, run_id, 1)
    before = verify(database, run_id).digest
    same = verify(database, run_id).digest
    with database.begin() as connection:
        connection.execute(text("UPDATE embedding SET key = 'another'"))

    after = verify(database, run_id).digest

    assert before == same
    assert before != after


def test_the_digest_holds_the_orders_and_not_the_last_digits_of_scores(database):
    run_id = add_reference_run(database)
    before = verify(database, run_id)

    _change(database, "UPDATE ranking SET margin = margin + 0.00004, coarse_score = 0.5")
    rounded = verify(database, run_id)
    _change(
        database,
        "UPDATE ranking SET margin = NULL, probability = NULL, fired = NULL, fired_layer = NULL, "
        "tie_group = NULL, tie_size = NULL, decided_by = 'coarse' "
        "WHERE final_rank = 1 AND query_id = 1",
    )
    unscored = verify(database, run_id)
    _change(
        database,
        "UPDATE ranking SET final_rank = final_rank + 10 WHERE query_id = 1",
        "UPDATE ranking SET final_rank = CASE final_rank WHEN 11 THEN 2 WHEN 12 THEN 1 ELSE 3 END "
        "WHERE query_id = 1",
    )
    reordered = verify(database, run_id)

    assert rounded.digest == before.digest
    assert rounded.mean_margin == pytest.approx(before.mean_margin, abs=1e-4)
    assert len({before.digest, unscored.digest, reordered.digest}) == 3


def test_a_cancelled_run_says_how_much_it_covers(database):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.CANCELLED)

    receipt = verify(database, run_id)

    assert not receipt.complete
    assert "4 of 5 queries have a ranking; the run was cancelled" in str(receipt.coverage)


def _change(database, *statements):
    with database.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
