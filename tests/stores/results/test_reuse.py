"""The scores that a dry run says will be reused are those that the run then reuses."""

import pytest
from sqlalchemy import text

from nightshift.schema.params import RerankParams, ScorerParams
from nightshift.schema.plans import RerankPlan
from nightshift.schema.records import TextPart
from nightshift.schema.states import Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.results import equal_pairs, pairs
from nightshift.stores.results.reuse import estimate_reuse
from nightshift.stores.results.writes import CandidateRow, write_candidates
from tests.catalog_rows import ITEMS, replace_parts
from tests.results.ranked import SCORER, add_reference_run

DEPTH = 3


@pytest.fixture
def scored(database):
    """Run 1: what it ranked are its candidates, each with a score under its present contents."""
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO embedding (index_id, item_id, key, content, run_id) "
                "SELECT \"index\".id, item.id, 'key-' || item.id, content_hash, 1 "
                f'FROM {ITEMS} AS item, "index"'
            )
        )
        connection.execute(
            text(
                "INSERT INTO candidate (run_id, query_id, item_id, content_id, coarse_rank, "
                "coarse_score) SELECT run_id, query_id, item_id, content_id, coarse_rank, "
                f"coarse_score FROM ranking JOIN {ITEMS} AS item ON item.id = item_id"
            )
        )
        score_all(connection, run_id)
    return run_id


def score_all(connection, run_id, *, lists=False):
    key = equal_pairs.pair_key_sql("text", "text", lists=lists)
    run = runs.get_run(connection, run_id)
    connection.execute(
        text(
            "INSERT INTO score (scorer, month, run_id, pair_key, margin, logit_positive, "
            "logit_negative, logsumexp, entropy, fired) SELECT number, :month, c.run_id, "
            f"{key}, 1, 1, 0, 2, 0.1, false FROM candidate c JOIN query q ON q.id = c.query_id "
            "JOIN content ON content.id = c.content_id "
            "JOIN model ON fingerprint = :fingerprint WHERE c.run_id = :run"
        ),
        {
            "run": run_id,
            "fingerprint": SCORER,
            "month": run.score_month,
        },
    )
    equal_pairs.link_scores(connection, run, query_parts="text", item_parts="text", lists=lists)


@pytest.fixture(autouse=True)
def _all_queries_have_a_list(scored, database):
    with database.begin() as connection:
        connection.execute(text("DELETE FROM query WHERE external_id = 'q5'"))


def test_queries_that_were_never_searched_for_make_the_number_a_guess(database, scored):
    with database.begin() as connection:
        connection.execute(text("DELETE FROM candidate WHERE query_id = 1"))

        assert not estimated(connection).exact


def estimated(connection, *, lists=False, top_k=DEPTH, item_parts="text"):
    return estimate_reuse(
        connection, query_set_id=1, index_id=1, scorer_fingerprint=SCORER, query_parts="text",
        item_parts=item_parts, top_k=top_k, lists=lists, revision=1,
    )  # fmt: skip


def reused(connection, *, lists=False, top_k=DEPTH, item_parts="text") -> int:
    """The number of scores that another run of the same queries reuses."""
    scorer = ScorerParams(score="listwise", framing="retllm_listwise") if lists else ScorerParams()
    params = RerankParams(query_parts="text", item_parts=item_parts, top_k=top_k, scorer=scorer)
    run_id = create_rerank_run(
        connection, stage=Stage.SEARCH, catalog_id=1, revision=1, index_id=1, query_set_id=1,
        scorer="hf:test", scorer_fingerprint=SCORER, params=params, plan=RerankPlan(),
    )  # fmt: skip
    rows = connection.execute(
        text(
            "SELECT query_id, candidate.item_id, item.content_id, coarse_rank, coarse_score "
            f"FROM candidate JOIN {ITEMS} AS item ON item.id = item_id "
            "JOIN embedding e ON e.item_id = item.id AND e.content = item.content_hash "
            "WHERE candidate.run_id = 1 AND coarse_rank <= :top_k"
        ),
        {"top_k": top_k},
    )
    run = runs.get_run(connection, run_id)
    write_candidates(connection, run, [CandidateRow(**row) for row in rows.mappings()])
    return pairs.count_pairs(connection, run).reused


def test_on_unchanged_data_every_pair_is_reused(database, scored):
    with database.begin() as connection:
        estimate = estimated(connection)

        assert (estimate.pairs, estimate.exact) == (11, True)
        assert reused(connection) == 11
        assert estimated(connection, top_k=1).pairs == reused(connection, top_k=1) == 4


@pytest.mark.parametrize("lists", [False, True])
def test_pairs_of_an_item_that_changed_since_are_not_counted(database, scored, lists):
    with database.begin() as connection:
        if lists:
            connection.execute(text("DELETE FROM score"))
            score_all(connection, scored, lists=True)
        replace_parts(connection, "i1", TextPart(text="other"))
        connection.execute(
            text(
                "UPDATE embedding SET content = item.content_hash "
                f"FROM {ITEMS} AS item WHERE item.id = item_id"
            )
        )
        estimate = estimated(connection, lists=lists)

        assert estimate.pairs == reused(connection, lists=lists) < 11
        assert estimate.exact


def test_candidates_of_several_earlier_runs_are_not_added_up(database, scored):
    with database.begin() as connection:
        reused(connection)
        reused(connection)
        # The first search was before i1 came into the index.
        connection.execute(
            text("DELETE FROM candidate WHERE run_id = 1 AND item_id = "
                 "(SELECT id FROM item WHERE external_id = 'i1')")
        )  # fmt: skip

        assert estimated(connection).pairs == 11


def test_a_pair_that_failed_or_shows_other_parts_is_not_counted(database, scored):
    with database.begin() as connection:
        connection.execute(
            text(
                "DELETE FROM score WHERE id IN "
                "(SELECT score_id FROM v_pair_score WHERE query_id = 1)"
            )
        )

        assert estimated(connection).pairs == reused(connection) == 8
        assert estimated(connection, item_parts="image").pairs == 0
        assert reused(connection, item_parts="image") == 0


def test_an_index_that_has_changed_since_makes_the_number_a_guess(database, scored):
    with database.begin() as connection:
        connection.execute(
            text("DELETE FROM embedding WHERE item_id = "
                 "(SELECT id FROM item WHERE external_id = 'i1')")
        )  # fmt: skip
        gone = estimated(connection)
        connection.execute(text("UPDATE embedding SET run_id = 9 WHERE item_id = 2"))

        assert (gone.pairs, gone.exact) == (8, False)
        assert not estimated(connection).exact
