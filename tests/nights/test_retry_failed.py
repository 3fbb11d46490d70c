"""A run with failures, mended and taken up again, ends as if nothing had been wrong."""

import json
from pathlib import Path

import pytest

from tests.nights.night import Night

pytestmark = pytest.mark.night

_RESULT = (
    "SELECT query, item, final_rank, coarse_rank, decided_by, round(margin::numeric, 4) "
    "FROM v_ranking WHERE run_id = :run ORDER BY query, final_rank"
)


def _write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _records(scenes: Path, name: str, n: int) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in (scenes / name).read_text().splitlines()[:n]]
    return [{**row, "image": str(scenes / row["image"])} for row in rows]


def _verify(night: Night, run_id: int) -> dict[str, object]:
    done = night.cli("verify", str(run_id), "--json")
    return json.loads(done.stdout)


def test_mended_failures_are_scored_and_ranked_as_if_nothing_had_been_wrong(
    busy_night, scenes, embedder, scorer, tmp_path
):
    night = busy_night
    items = _records(scenes, "items.jsonl", 8)
    image = tmp_path / "mended.png"
    image.write_bytes(Path(items[0]["image"]).read_bytes())
    items[0]["image"] = str(image)
    night.cli("catalog", "import", "broken", _write(tmp_path / "items.jsonl", items), "--json")
    night.cli("index", "build", "broken", "--embedder", embedder, "--parts", "image", "--wait")
    queries = _write(tmp_path / "queries.jsonl", _records(scenes, "queries-image.jsonl", 3))
    rerank = ("rerank", "broken", "--queries", queries, "--scorer", scorer, "--top-k", "8",
              "--query-parts", "image", "--item-parts", "image", "--wait", "--json")  # fmt: skip
    recorded = image.read_bytes()
    image.unlink()
    with_failures = night.cli(*rerank, check=False)
    run_id = json.loads(with_failures.stdout)["run_id"]
    failed = _verify(night, run_id)
    image.write_bytes(recorded)

    night.cli("run", "retry-failed", str(run_id))

    assert night.wait_for_run(run_id) == "done"
    receipt = _verify(night, run_id)
    assert failed["pairs"]["failed"] > 0
    assert with_failures.returncode == 7
    assert receipt["pairs"] == {"expected": 24, "done": 24, "failed": 0, "skipped": 0, "missing": 0}
    assert receipt["queries"] == {"expected": 3, "done": 3, "failed": 0, "skipped": 0, "missing": 0}
    mended = night.rows(_RESULT, run=run_id)
    assert len(mended) == 24
    # Or the second run would reuse the scores instead of computing them.
    night.rows("DELETE FROM score WHERE run_id = :r RETURNING 1", r=run_id)
    undisturbed = json.loads(night.cli(*rerank).stdout)["run_id"]
    assert night.rows(_RESULT, run=undisturbed) == mended
    ranked_once = night.rows(
        "SELECT sum(value) FROM v_calibration WHERE run_id = :r AND statistic = 'n_queries'",
        r=run_id,
    )
    fresh = night.rows(
        "SELECT sum(value) FROM v_calibration WHERE run_id = :r AND statistic = 'n_queries'",
        r=undisturbed,
    )
    assert ranked_once == fresh
