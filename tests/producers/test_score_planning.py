"""The score stage is planned in many transactions; whoever goes on ends with the same plan."""

import random

import pytest
from sqlalchemy import text

from nightshift.producers.query_import import import_queries
from nightshift.producers.score_planning import begin_planning, plan_scoring
from nightshift.schema.errors import LeaseLostError
from nightshift.schema.messages import ScorePayload
from nightshift.schema.params import RerankParams
from nightshift.schema.plans import RerankPlan
from nightshift.schema.records import TextPart
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import jobs, runs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.results.writes import CandidateRow, write_candidates
from tests.catalog_rows import ITEMS, add_item
from tests.producers.source_files import write_jsonl
from tests.results.ranked import SCORER, add_reference_run

_QUERIES, _TOP_K = 30, 8


@pytest.fixture
def run_id(database, tmp_path):
    """A run that has searched: 30 queries with 8 candidates each, some of equal contents."""
    add_reference_run(database)
    rows = [{"id": f"n{n:02d}", "text": f"wanted {n % 25}"} for n in range(_QUERIES)]
    queries = import_queries(database, str(write_jsonl(tmp_path / "more.jsonl", rows)))
    with database.begin() as connection:
        for number in range(20):
            add_item(connection, 1, f"many{number:02d}", TextPart(text=f"thing {number % 15}"))
        run_id = create_rerank_run(
            connection, stage=Stage.SEARCH, catalog_id=1, revision=1, index_id=1,
            query_set_id=queries.query_set_id, scorer="hf:test", scorer_fingerprint=SCORER,
            params=RerankParams(query_parts="text", item_parts="text", top_k=_TOP_K),
            plan=RerankPlan(queries=_QUERIES),
        )  # fmt: skip
        items = connection.execute(
            text(
                f"SELECT id, content_id FROM {ITEMS} AS item WHERE external_id LIKE 'many%' "
                "ORDER BY id"
            )
        ).all()
        query_ids = connection.scalars(
            text("SELECT id FROM query WHERE query_set_id = :s ORDER BY id"),
            {"s": queries.query_set_id},
        )
        draw = random.Random(1)
        write_candidates(
            connection,
            runs.get_run(connection, run_id),
            [
                CandidateRow(
                    query_id=query_id,
                    item_id=item.id,
                    content_id=item.content_id,
                    coarse_rank=rank,
                    coarse_score=1 - rank / 100,
                )
                for query_id in query_ids
                for rank, item in enumerate(draw.sample(items, _TOP_K), 1)
            ],
        )
    return run_id


def begin(database, run_id):
    with database.begin() as connection:
        begin_planning(connection, runs.get_run(connection, run_id))


def planned(database, run_id):
    """Pairs that have jobs, in the order of the jobs, and the counts of the plan."""
    with database.begin() as connection:
        payloads = connection.scalars(
            text(
                "SELECT payload FROM job WHERE run_id = :run AND stage = 'score' "
                "AND state = 'queued' ORDER BY id"
            ),
            {"run": run_id},
        )
        pairs = [
            pair for payload in payloads for pair in ScorePayload.model_validate(payload).pairs()
        ]
        plan = runs.get_run(connection, run_id).plan.to_json()
    # A planner that goes on may cut a group that the one before it began.
    return pairs, {name: count for name, count in plan.items() if name != "groups"}


def without_rival(_connection):
    """A fence that lets each commit through."""


class KilledError(Exception):
    """The planner dies here."""


def test_a_plan_in_small_steps_is_that_of_one_step(database, run_id):
    begin(database, run_id)
    assert plan_scoring(database, run_id, without_rival, step_pairs=10) is Stage.SCORE
    in_steps = planned(database, run_id)

    with database.begin() as connection:
        runs.move_to_stage(connection, run_id, Stage.SEARCH, plan=RerankPlan(queries=_QUERIES))
    begin(database, run_id)
    assert plan_scoring(database, run_id, without_rival) is Stage.SCORE

    assert planned(database, run_id) == in_steps
    pairs, plan = in_steps
    assert len(pairs) == len(set(pairs)) == plan["to_score"]
    assert plan["pairs"] == _QUERIES * _TOP_K
    assert plan["equal"] > 0


def test_a_planner_that_is_killed_at_any_step_leaves_its_work_to_the_next(database, run_id):
    begin(database, run_id)
    plan_scoring(database, run_id, without_rival)
    plan_of_one_step = planned(database, run_id)
    draw = random.Random(2)
    for _ in range(30):
        with database.begin() as connection:
            runs.move_to_stage(connection, run_id, Stage.SEARCH, plan=RerankPlan(queries=_QUERIES))
        begin(database, run_id)
        kills = 0
        while True:
            steps_left = draw.randrange(1, 12)

            def fence(_connection):
                nonlocal steps_left
                steps_left -= 1
                if not steps_left:
                    raise KilledError

            try:
                assert plan_scoring(database, run_id, fence, step_pairs=40) is Stage.SCORE
                break
            except KilledError:
                kills += 1

        assert planned(database, run_id) == plan_of_one_step, kills


def test_a_run_that_is_paused_between_two_steps_is_planned_on_when_it_goes_on(database, run_id):
    begin(database, run_id)
    steps = 0

    def pause_at_the_fourth(_connection):
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KilledError

    with pytest.raises(KilledError):
        plan_scoring(database, run_id, pause_at_the_fourth, step_pairs=40)
    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.PAUSED)

    assert plan_scoring(database, run_id, without_rival) is None

    with database.begin() as connection:
        runs.set_run_state(connection, run_id, RunState.RUNNING)
    assert plan_scoring(database, run_id, without_rival) is Stage.SCORE
    pairs, plan = planned(database, run_id)
    assert len(pairs) == len(set(pairs)) == plan["to_score"]


def test_no_job_is_rung_for_before_all_are_planned(database, run_id):
    begin(database, run_id)
    steps = 0

    def stop_among_the_jobs(connection):
        nonlocal steps
        n_jobs = connection.execute(
            text("SELECT count(*) FROM job WHERE run_id = :run AND stage = 'score'"),
            {"run": run_id},
        ).scalar_one()
        steps += n_jobs > 0
        if steps == 2:
            raise LeaseLostError("another leads")

    with pytest.raises(LeaseLostError):
        plan_scoring(database, run_id, stop_among_the_jobs, step_pairs=40)

    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        assert run.stage is Stage.SEARCH
        assert jobs.jobs_to_ring(connection, run_id, run.stage, limit=9, ring_again=True) == []
    assert plan_scoring(database, run_id, without_rival) is Stage.SCORE
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        assert jobs.jobs_to_ring(connection, run_id, run.stage, limit=9, ring_again=True)
