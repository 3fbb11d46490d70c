"""The planner's groups of unscored pairs."""

import pytest
from sqlalchemy import text

from nightshift.stores.results import pairs
from nightshift.stores.results.pairs import KindPair
from tests.catalog_rows import ITEMS
from tests.results.ranked import add_reference_run

_TEXTS = [KindPair(query=frozenset({"text"}), item=frozenset({"text"}))]
#: By query, its candidates in coarse order.
_CANDIDATES = {"q1": ["i3", "i1", "i2"], "q2": ["i1", "i4"], "q3": ["i2", "i5"]}


@pytest.fixture
def run_id(database):
    """A run whose candidates, of texts that all differ, have no scores."""
    run_id = add_reference_run(database)
    with database.begin() as connection:
        for query, items in _CANDIDATES.items():
            for rank, item in enumerate(items, 1):
                connection.execute(
                    text(
                        "INSERT INTO candidate (run_id, query_id, item_id, content_id, "
                        "coarse_rank, coarse_score) SELECT :run, q.id, i.id, i.content_id, :rank, "
                        f"0.5 FROM query q, {ITEMS} AS i "
                        "WHERE q.external_id = :query AND i.external_id = :item"
                    ),
                    {"run": run_id, "rank": rank, "query": query, "item": item},
                )
    return run_id


def test_pairs_are_grouped_by_their_query_with_items_in_the_order_of_their_ids(database, run_id):
    assert grouped(database, run_id, "query") == [
        ("q1", ["i1", "i2", "i3"]),
        ("q2", ["i1", "i4"]),
        ("q3", ["i2", "i5"]),
    ]


def test_pairs_are_grouped_by_their_item_where_prompts_share_it(database, run_id):
    assert grouped(database, run_id, "candidate") == [
        ("i1", ["q1", "q2"]),
        ("i2", ["q1", "q3"]),
        ("i3", ["q1"]),
        ("i4", ["q2"]),
        ("i5", ["q3"]),
    ]


def test_lists_keep_the_order_of_the_coarse_search(database, run_id):
    assert grouped(database, run_id, "query", lists=True) == list(_CANDIDATES.items())


def test_of_pairs_with_equal_contents_only_the_first_is_in_a_group(database, run_id):
    make_equal(database, "query", "q1", "q2")
    make_equal(database, "item", "i2", "i3")

    assert grouped(database, run_id, "query") == [
        ("q1", ["i1", "i2"]),
        ("q2", ["i4"]),
        ("q3", ["i2", "i5"]),
    ]


def test_of_equal_queries_with_equal_lists_only_one_is_in_a_group(database, run_id):
    make_equal(database, "query", "q2", "q3")
    make_equal(database, "item", "i1", "i2")
    make_equal(database, "item", "i4", "i5")

    assert grouped(database, run_id, "query", lists=True) == [
        ("q1", ["i3", "i1"]),
        ("q2", ["i1", "i4"]),
    ]


def test_pairs_of_other_kinds_are_in_no_group(database, run_id):
    images = [KindPair(query=frozenset({"text"}), item=frozenset({"image"}))]

    assert grouped(database, run_id, "query", combinations=images) == []


def test_a_pair_that_failed_is_in_no_group(database, run_id):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO failure (run_id, stage, subject_kind, subject_id, reason, message) "
                "VALUES (:run, 'score', 'pair', 'q2 → i1', 'image_missing', 'it is gone')"
            ),
            {"run": run_id},
        )

    assert ("q2", ["i4"]) in grouped(database, run_id, "query")


def grouped(database, run_id, shared_side, *, combinations=_TEXTS, lists=False):
    """The groups, by names in place of ids."""
    other_side = "candidate" if shared_side == "query" else "query"
    with database.begin() as connection:
        names = {
            side: dict(connection.execute(text(f"SELECT id, external_id FROM {table}")).all())
            for side, table in (("query", "query"), ("candidate", "item"))
        }
        groups = pairs.groups(
            connection,
            run_id,
            query_parts="text",
            item_parts="text",
            combinations=combinations,
            shared_side=shared_side,
            lists=lists,
        )
        return [
            (names[shared_side][shared], [names[other_side][other] for other in others])
            for shared, others in groups
        ]


def make_equal(database, table, first, second):
    """Give the second record the text of the first."""
    changed, records = ("query", "query") if table == "query" else ("content", ITEMS)
    own_id = "id" if table == "query" else "content_id"
    with database.begin() as connection:
        connection.execute(
            text(
                f"UPDATE {changed} SET text_hash = other.text_hash "
                f"FROM {records} AS other, {records} AS own WHERE {changed}.id = own.{own_id} "
                "AND own.external_id = :second AND other.external_id = :first"
            ),
            {"first": first, "second": second},
        )
