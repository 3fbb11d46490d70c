"""The JSON of a run has the same keys for every kind of run."""

from nightshift.results.run_json import run_json
from nightshift.schema.params import TokenParams
from nightshift.schema.plans import RerankControl, TokenPlan
from nightshift.schema.states import Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_token_run
from nightshift.stores.models import upsert_model
from nightshift.stores.tokens import token_sets
from tests.results.ranked import add_reference_run
from tests.stores.ledger_helpers import add_catalog, add_index_run

_KEYS = [
    "id", "kind", "state", "stage", "catalog_id", "catalog", "revision", "index_id", "index_name",
    "collection", "embedder", "embedder_fingerprint", "index_parts", "query_set_id", "query_set",
    "token_set_id",
    "method", "scorer", "scorer_fingerprint", "params", "plan", "priority", "created_at",
    "finished_at",
]  # fmt: skip


def _add_token_run(database) -> int:
    catalog_id = add_catalog(database, "seen things")
    with database.begin() as connection:
        upsert_model(connection, fingerprint="v", kind="vision", spec="hf:tower", card={},
                     package_version="0")  # fmt: skip
        token_set = token_sets.ensure_set(
            connection, catalog_id=catalog_id, vision_fingerprint="v", codec="int8", width=4,
            precision="float32", address="/nowhere",
        )  # fmt: skip
        return create_token_run(
            connection, stage=Stage.TOKENS, catalog_id=catalog_id, revision=1,
            token_set_id=token_set.id,
            vision="hf:tower", vision_fingerprint="v", params=TokenParams(codec="int8"),
            plan=TokenPlan(items=3),
        )  # fmt: skip


def _json_of(database, run_id):
    with database.begin() as connection:
        return run_json(runs.get_run(connection, run_id))


def test_runs_of_all_kinds_have_the_same_keys(database):
    index = _json_of(database, add_index_run(database))
    tokens = _json_of(database, _add_token_run(database))
    rerank = _json_of(database, add_reference_run(database))

    assert [list(run) for run in (index, tokens, rerank)] == [_KEYS] * 3
    assert (index["query_set"], index["method"], index["scorer"]) == (None, None, None)
    assert (tokens["index_id"], tokens["collection"], tokens["scorer"]) == (0, "", "hf:tower")
    assert tokens["params"] == {"codec": "int8", "min_pixels": None, "max_pixels": None}
    assert (rerank["method"], rerank["params"]["top_k"]) == ("retllm", 5)
    assert rerank["plan"] == {"queries": 5, "pairs": 11, "reused": 1, "to_score": 10, "groups": 4}


def test_rounds_of_planning_again_are_shown_with_the_plan(database):
    run_id = add_reference_run(database)
    control = RerankControl(embed_rounds=2, ties_asked=True)
    with database.begin() as connection:
        runs.move_to_stage(connection, run_id, Stage.EMBED, control=control)

    plan = _json_of(database, run_id)["plan"]

    assert (plan["embed_rounds"], plan["queries"]) == (2, 5)
    assert not {"search_again", "equal_rounds", "ties_asked"} & set(plan)
