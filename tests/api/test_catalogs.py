"""Catalogues, refused rows and query sets from Python."""

import json

import pytest

from nightshift import api
from nightshift.producers.catalog_import import ImportLimits, Limit
from nightshift.schema.errors import ConflictError, InputError, NotFoundError


@pytest.fixture
def ns(settings):
    with api.connect(settings=settings) as client:
        yield client


def test_a_catalogue_has_counts_imports_and_refused_rows(ns, tmp_path):
    source = tmp_path / "items.jsonl"
    source.write_text('{"id":"a","text":"one"}\n{"id":"b"}\n{"id":"c"}\n')

    ns.import_catalog("shop", str(source))

    assert [(row.name, row.live) for row in ns.catalogs()] == [("shop", 1)]
    details = ns.catalog("shop")
    assert (details.facts.text_only, details.imports[0].failed) == (1, 2)
    refused = ns.import_failures("shop", import_id=details.imports[0].id)
    assert len(refused) == 2
    assert ns.import_failures("shop", limit=1) == refused[:1]
    assert ns.import_failures("shop", reason="no_such_reason") == []


def test_a_catalogue_that_does_not_exist_is_refused(ns):
    with pytest.raises(NotFoundError, match="attic"):
        ns.catalog("attic")
    with pytest.raises(NotFoundError, match="attic"):
        ns.import_failures("attic")


def test_queries_are_imported_by_themselves(ns, tmp_path):
    queries = tmp_path / "queries.jsonl"
    queries.write_text("".join(json.dumps({"id": f"q{n}", "text": "shoe"}) + "\n" for n in (1, 2)))

    first, second = ns.import_queries(str(queries)), ns.import_queries(str(queries))

    assert (first.n_queries, first.failed) == (2, 0)
    assert second.query_set_id == first.query_set_id


def test_a_file_without_a_query_is_refused(ns, tmp_path):
    empty = tmp_path / "queries.jsonl"
    empty.write_text("{}\n")

    with pytest.raises(InputError):
        ns.import_queries(str(empty))


def _import(ns, tmp_path, items):
    source = tmp_path / "items.jsonl"
    source.write_text("".join(json.dumps({"id": name, **item}) + "\n" for name, item in items))
    return ns.import_catalog(
        "shop", str(source), limits=ImportLimits(prune=True, max_gone=Limit.parse("100%"))
    )


@pytest.fixture
def three_revisions(ns, tmp_path):
    """Items a and b; then b in blue, a gone and c new; then c with a price."""
    _import(ns, tmp_path, [("a", {"text": "red"}), ("b", {"text": "red"})])
    _import(ns, tmp_path, [("b", {"text": "blue"}), ("c", {"text": "red"})])
    _import(ns, tmp_path, [("b", {"text": "blue"}), ("c", {"text": "red", "price": 1})])
    return ns


def _counts(revision):
    return revision.number, revision.items, revision.added, revision.changed, revision.removed


def test_each_import_is_a_revision_with_its_counts(three_revisions, tmp_path):
    rows = three_revisions.catalog_history("shop")

    assert [_counts(row) for row in rows] == [(3, 2, 0, 1, 0), (2, 2, 1, 1, 1), (1, 2, 2, 0, 0)]
    assert {row.source for row in rows} == {str(tmp_path / "items.jsonl")}
    assert three_revisions.catalogs()[0].revision == 3
    assert three_revisions.catalog_history("shop", limit=1) == rows[:1]


def test_two_revisions_are_compared_in_either_order(three_revisions):
    forward = three_revisions.catalog_diff("shop", 1, 3)
    backward = three_revisions.catalog_diff("shop", 3, 1, limit=0)

    assert (forward.added.ids, forward.changed.ids, forward.removed.ids) == (("c",), ("b",), ("a",))
    assert three_revisions.catalog_diff("shop", 2, 3).changed.ids == ("c",)
    assert three_revisions.catalog_diff("shop", 2, 2).changed.count == 0
    assert (backward.added.count, backward.removed.count, backward.added.ids) == (1, 1, ())


def test_a_rollback_is_a_new_revision_with_the_state_of_the_old_one(three_revisions):
    made = three_revisions.roll_back_catalog("shop", 1)

    assert _counts(made) == (4, 2, 1, 1, 1)
    assert (made.rolled_back_to, made.import_id) == (1, None)
    same = three_revisions.catalog_diff("shop", 1, 4)
    assert [same.added.count, same.changed.count, same.removed.count] == [0, 0, 0]
    assert three_revisions.roll_back_catalog("shop", 3).items == 2
    assert three_revisions.catalog_diff("shop", 3, 5).changed.count == 0


def test_a_revision_that_does_not_exist_or_is_the_newest_is_refused(three_revisions):
    with pytest.raises(NotFoundError, match="no revision 9"):
        three_revisions.catalog_diff("shop", 1, 9)
    with pytest.raises(NotFoundError, match="catalog history shop"):
        three_revisions.roll_back_catalog("shop", 9)
    with pytest.raises(ConflictError, match="newest"):
        three_revisions.roll_back_catalog("shop", 3)


def test_an_import_after_a_rollback_changes_what_differs_from_it(three_revisions, tmp_path):
    three_revisions.roll_back_catalog("shop", 1)

    summary = _import(three_revisions, tmp_path, [("a", {"text": "red"}), ("b", {"text": "red"})])

    assert (summary.revision, summary.unchanged, summary.gone) == (5, 2, 0)
