"""RetLLM's presets and scores as runs: lists reuse lists, and written scores that tie ask again."""

import json
from pathlib import Path

import pytest

from nightshift.schema.messages import ScorePayload
from tests.nights.night import Night

pytestmark = pytest.mark.night

_TIED_AT = 1.7346  # log-odds of 0.85


def _rerank(night: Night, queries: Path, scorer: str, *more: str, ends_with: int = 0) -> int:
    done = night.cli("rerank", "scenes", "--queries", str(queries), "--scorer", scorer, "--wait",
                     "--json", *more, check=False)  # fmt: skip
    assert done.returncode == ends_with, done.stderr + done.stdout
    return json.loads(done.stdout)["run_id"]


def _few(path: Path, scenes: Path, name: str, n_queries: int) -> Path:
    rows = map(json.loads, (scenes / name).read_text().splitlines()[:n_queries])
    full = [{**row, "image": str(scenes / row["image"])} if "image" in row else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in full))
    return path


def test_a_list_is_scored_as_a_whole_and_reused_as_a_whole(indexed_night, scenes, scorer, tmp_path):
    night = indexed_night
    queries = _few(tmp_path / "q.jsonl", scenes, "queries-image.jsonl", 4)
    listwise = ("--score", "listwise", "--query-parts", "image", "--item-parts", "text")
    runs = [
        _rerank(night, queries, scorer, *listwise, "--top-k", top_k) for top_k in ("4", "4", "3")
    ]

    first, repeated, shorter = (
        night.rows(
            "SELECT r.query_id, count(*), sum(r.probability), "
            "count(nullif(p.computed_by, r.run_id)), count(DISTINCT p.entropy) "
            "FROM ranking r JOIN v_pair_score p USING (run_id, query_id, item_id) "
            "WHERE r.run_id = :r GROUP BY 1 ORDER BY 1",
            r=run_id,
        )
        for run_id in runs
    )
    assert [row[1] for row in first] == [4] * 4
    assert [row[2] for row in first] == pytest.approx([1] * 4, abs=1e-5), "a choice among four"
    assert [row[4] for row in first] == [1] * 4, "the list's entropy is every candidate's"
    assert [row[3] for row in first] == [0] * 4
    assert [row[3] for row in repeated] == [4] * 4
    assert [row[3] for row in shorter] == [0] * 4, "the same pairs, but in another list"
    orders = night.rows("SELECT payload -> 'groups' FROM job WHERE run_id = :r AND stage = 'score'",
                        r=runs[0])  # fmt: skip
    candidates = night.rows(
        "SELECT query_id, array_agg(item_id ORDER BY coarse_rank) FROM candidate "
        "WHERE run_id = :r GROUP BY 1 ORDER BY 1", r=runs[0])  # fmt: skip
    shown = [tuple(group) for (groups,) in orders for group in groups]
    assert shown == [(query, items) for query, items in candidates], "in coarse order"


def test_the_paper_s_scores_are_written_and_only_ties_are_asked_about_again(
    indexed_night, scenes, scorer, tmp_path
):
    night = indexed_night
    queries = _few(tmp_path / "q.jsonl", scenes, "queries-text.jsonl", 2)
    run_id = _rerank(night, queries, scorer, "--preset", "paper", "--top-k", "3")
    ((params, card),) = night.rows(
        "SELECT run.params -> 'scorer', model.card -> 'params' FROM run "
        "JOIN model ON model.fingerprint = run.scorer_fingerprint WHERE run.id = :r", r=run_id,
    )  # fmt: skip
    assert params == card, "what the run names is what the fingerprint is made of"
    assert (params["preset"], params["score"]) == ("paper", "number")
    assert params["enhancement"]["alpha"] == 0.3
    pairs = "FROM v_pair_score WHERE run_id = :r"
    said = json.loads(night.cli("run", "show", str(run_id), "--json").stdout)["failures"]
    assert [(line["reason"], line["fatal"], line["count"]) for line in said] == [
        ("answer_unreadable", False, 6), ("not_packed", False, 1),
    ]  # fmt: skip
    assert "has a prompt of its own for each pair" in said[1]["example"]
    written = night.rows(f"SELECT bool_and(written IS NOT NULL), count(*) {pairs}", r=run_id)
    assert written == [(True, 6)]

    # The tiny scorer was not trained to write numbers: give it what a trained one wrote.
    night.rows(
        "UPDATE score s SET logit_positive = NULL, logit_negative = NULL, logsumexp = NULL, "
        "entropy = NULL, margin = CASE WHEN c.coarse_rank = 2 THEN -1 ELSE :tied END "
        "FROM candidate c WHERE c.run_id = :r AND s.id = c.score_id RETURNING 1",
        r=run_id, tied=_TIED_AT,
    )  # fmt: skip
    night.rows(
        "UPDATE run SET state = 'running', stage = 'score', finished_at = NULL, "
        "ties_asked = false WHERE id = :r RETURNING 1", r=run_id,
    )  # fmt: skip

    assert night.wait_for_run(run_id) == "done"
    rows = night.rows(
        "SELECT payload FROM job WHERE run_id = :r AND stage = 'score' "
        "AND payload ->> 'asks' = 'ties' AND state = 'done'", r=run_id,
    )  # fmt: skip
    assert sum(len(ScorePayload.model_validate(job).pairs()) for (job,) in rows) == 4
    results = night.rows(
        "SELECT c.coarse_rank, r.decided_by, r.entropy IS NOT NULL, r.final_rank, "
        "rank() OVER (PARTITION BY r.query_id ORDER BY p.margin < 0, r.entropy) FROM ranking r "
        "JOIN v_pair_score p USING (run_id, query_id, item_id) "
        "JOIN candidate c USING (run_id, query_id, item_id) "
        "WHERE r.run_id = :r ORDER BY r.query_id, c.coarse_rank", r=run_id,
    )  # fmt: skip
    assert [row[:3] for row in results] == [
        (1, "entropy", True), (2, "score", False), (3, "entropy", True),
    ] * 2  # fmt: skip
    assert all(final == by_entropy for *_, final, by_entropy in results)
    assert night.cli("verify", str(run_id)).returncode == 0


def test_pairs_without_a_prompt_fail_with_their_reason_and_the_run_ends(
    indexed_night, scenes, scorer, tmp_path
):
    queries = _few(tmp_path / "q.jsonl", scenes, "queries-text.jsonl", 2)
    run_id = _rerank(
        indexed_night, queries, scorer, "--score", "listwise", "--top-k", "2", ends_with=7
    )

    reasons = indexed_night.rows(
        "SELECT reason, count(*) FROM failure WHERE run_id = :r GROUP BY 1", r=run_id
    )
    assert reasons == [("no_prompt", 4)]
    assert indexed_night.cli("verify", str(run_id)).returncode == 0


def test_a_list_of_ten_is_refused_before_it_is_planned(indexed_night, scenes, scorer):
    refused = indexed_night.cli(
        "rerank", "scenes", "--queries", str(scenes / "queries-image.jsonl"), "--scorer", scorer,
        "--score", "listwise", "--item-parts", "text", "--top-k", "10", check=False,
    )  # fmt: skip

    assert refused.returncode == 2
    assert "--top-k 9" in refused.stderr
