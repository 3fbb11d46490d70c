"""Catalogues, refused rows and query sets from Python."""

import json

import pytest

from nightshift import api
from nightshift.schema.errors import InputError, NotFoundError


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
