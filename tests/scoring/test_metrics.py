"""Ranking measures, against trec_eval."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.scoring.metrics import average_precision, evaluate, ndcg, recall, success

ITEMS = [f"d{i}" for i in range(8)]
judgements = st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 3), min_size=1)
ranked = st.permutations(ITEMS).flatmap(lambda d: st.integers(0, 8).map(lambda n: d[:n]))


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from("abc"), st.tuples(judgements, ranked), min_size=1))
def test_every_measure_agrees_with_trec_eval(queries: dict) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels = {query: j for query, (j, _) in queries.items() if any(g > 0 for g in j.values())}
    rankings = {query: ranking for query, (_, ranking) in queries.items()}
    if not qrels:
        return
    measures = {"map", "recip_rank", "recall.1,5", "success.1,5", "ndcg_cut.1,5"}
    runs = {
        query: {item: float(-place) for place, item in enumerate(rankings[query])}
        for query in qrels
        if rankings[query]
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(runs)

    ours = evaluate(rankings, qrels, cutoffs=(1, 5))

    assert ours.n_queries == len(qrels)
    names = {"map": "map", "mrr": "recip_rank"}
    for k in (1, 5):
        names |= {f"recall@{k}": f"recall_{k}", f"success@{k}": f"success_{k}"}
        names |= {f"ndcg@{k}": f"ndcg_cut_{k}"}
    for mine, other in names.items():
        # trec_eval leaves out queries without results; we count them as zero.
        total = sum(values[other] for values in theirs.values())
        assert ours.means[mine] == pytest.approx(total / len(qrels))


def test_measures_of_a_list_made_by_hand() -> None:
    wanted = {"a": 1, "b": 1, "z": 0}
    ranking = ["x", "a", "z", "b"]

    assert recall(ranking, wanted, k=2) == 0.5
    assert success(ranking, wanted, k=1) == 0.0
    assert average_precision(ranking, wanted) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert ndcg(["a", "b"], wanted, k=2) == pytest.approx(1.0)


def test_without_relevant_items_every_measure_is_zero() -> None:
    assert average_precision(["a"], {"a": 0}) == 0.0
    assert recall(["a"], {}, k=1) == 0.0
    assert ndcg(["a"], {"a": -1}, k=1) == 0.0


def test_a_query_without_relevant_items_is_left_out_and_one_without_results_counts() -> None:
    evaluation = evaluate(
        {"q1": ["a"]}, {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 0}}, cutoffs=[1]
    )

    assert evaluation.n_queries == 2
    assert evaluation.means["recall@1"] == 0.5


def test_no_judged_query_gives_no_means() -> None:
    assert evaluate({"q": ["a"]}, {}).means == {}
