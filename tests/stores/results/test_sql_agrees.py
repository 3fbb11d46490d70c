"""Rules that exist in SQL and in Python have the same results in both."""

from math import log

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import text

from nightshift.schema.identity import list_hash, pair_key
from nightshift.schema.states import DecidedBy
from nightshift.scoring.fusion import fused
from nightshift.scoring.tie_break import break_ties
from nightshift.stores.catalog.contents import HASH_COLUMN
from nightshift.stores.ledger import runs
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.equal_pairs import pair_key_sql
from nightshift.stores.results.scores import PairScoreRow, write_scores
from nightshift.stores.results.tied_pairs import tied_pairs
from nightshift.stores.results.writes import (
    CandidateRow,
    load_scored_candidates,
    write_candidates,
)
from tests.results.ranked import add_reference_run

_QUERY = 7
_FINGERPRINT = "0123456789abcdef"

_HUNDREDTHS = st.integers(1, 99).map(lambda n: log(n / 100 / (1 - n / 100)))
_MARGINS = st.one_of(_HUNDREDTHS, st.floats(-3, 3, width=32), st.floats(-1000, 1000, width=32))
_COARSE = st.floats(-1, 1, width=32)
_DIGESTS = st.binary(min_size=32, max_size=32)


@pytest.fixture(scope="module")
def shared_database(shared_database_url):
    with Database(shared_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(shared_database):
    """A run with partitions for its results."""
    run_id = add_reference_run(shared_database)
    with shared_database.begin() as connection:
        return runs.get_run(connection, run_id)


@given(
    scores=st.lists(st.tuples(_MARGINS, _COARSE), min_size=1, max_size=20),
    quantum=st.sampled_from([0.01, 0.05, 0.1]),
    fusion=st.sampled_from([0.0, 0.2, 0.5]),
    guard=st.booleans(),
)
@example(scores=[(-1000.0, 0.1), (-900.0, 0.2)], quantum=0.01, fusion=0.0, guard=False)
@example(scores=[(1000.0, 0.1), (900.0, 0.2)], quantum=0.01, fusion=0.0, guard=True)
def test_postgres_finds_the_ties_that_entropy_decides(
    shared_database, run, scores, quantum, fusion, guard
):
    candidates = [
        CandidateRow(query_id=_QUERY, item_id=n, content_id=n, coarse_rank=n, coarse_score=coarse)
        for n, (_, coarse) in enumerate(scores, 1)
    ]
    pairs = [
        PairScoreRow(
            query_id=_QUERY,
            item_id=n,
            pair_key=n.to_bytes(32),
            margin=margin,
            logit_positive=None,
            logit_negative=None,
            logsumexp=None,
            entropy=None,
            fired=False,
            fired_layer=None,
            uncertainty=None,
            plain_margin=None,
            written="read",
        )
        for n, (margin, _) in enumerate(scores, 1)
    ]
    with shared_database.sketch() as connection:
        write_candidates(connection, run, candidates)
        write_scores(connection, run, pairs)
        tied = list(tied_pairs(connection, run, quantum=quantum, fusion=fusion, guard=guard))
        stored = load_scored_candidates(connection, run, [_QUERY])[_QUERY]

    margins = [candidate.margin for candidate in stored]
    coarse_scores = [candidate.coarse_score for candidate in stored]
    fused_scores, exact = fused(coarse_scores, margins, weight=fusion) if fusion else (None, None)
    placements = break_ties(
        margins,
        # All different: whatever entropy may decide, it decides.
        [float(n) for n in range(len(stored))],
        [candidate.coarse_rank for candidate in stored],
        quantum=quantum,
        fused=fused_scores,
        exact=exact,
        guard=guard,
    )
    item_ids = [
        candidate.item_id
        for candidate, placement in zip(stored, placements, strict=True)
        if placement.decided_by is DecidedBy.ENTROPY
    ]
    assert tied == ([(_QUERY, item_ids)] if item_ids else [])


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("item_parts", HASH_COLUMN)
@pytest.mark.parametrize("query_parts", HASH_COLUMN)
@given(query=_DIGESTS, items=st.lists(_DIGESTS, min_size=1, max_size=5, unique=True))
def test_postgres_computes_the_key_of_a_pair(
    shared_database, query_parts, item_parts, lists, query, items
):
    key = pair_key_sql(query_parts, item_parts, lists=lists)
    with shared_database.sketch() as connection:
        keys = connection.scalars(
            text(f"""
                SELECT {key}
                FROM (SELECT 1 AS query_id, item, coarse_rank
                    FROM unnest(CAST(:items AS bytea[])) WITH ORDINALITY AS list(item, coarse_rank)
                ) AS c
                CROSS JOIN (SELECT CAST(:query AS bytea) AS {HASH_COLUMN[query_parts]}) AS q
                CROSS JOIN LATERAL (SELECT c.item AS {HASH_COLUMN[item_parts]})
                    AS content
                ORDER BY c.coarse_rank
            """),
            {"fingerprint": _FINGERPRINT, "query": query, "items": items},
        )
        in_postgres = [bytes(value) for value in keys]

    list_content = list_hash(items) if lists else b""
    assert in_postgres == [pair_key(_FINGERPRINT, query, item, list_content) for item in items]
