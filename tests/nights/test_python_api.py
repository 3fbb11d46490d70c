"""A whole run through the Python API alone, and the example script, with a real worker."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nightshift import api
from nightshift.schema.errors import ConflictError, NotFoundError
from nightshift.schema.states import RunState
from tests.nights.night import Night

ROOT = Path(__file__).parent.parent.parent


def test_a_whole_run_through_the_api_alone(
    busy_night: Night, scenes: Path, embedder: str, scorer: str, tmp_path: Path
) -> None:
    looks: list[int] = []
    with api.connect(settings=busy_night.settings) as ns:
        assert ns.import_catalog("api", str(scenes / "items.jsonl")).accepted == 96
        index_run = ns.build_index(api.IndexRequest(catalog="api", embedder=embedder))
        assert ns.wait(index_run).state is RunState.DONE

        request = api.RerankRequest(
            catalog="api",
            queries=str(scenes / "queries-text.jsonl"),
            qrels=str(scenes / "qrels-text-image.txt"),
            scorer=scorer,
            top_k=4,
        )
        preview = ns.preview_rerank(request)
        run = ns.rerank(request)
        end = ns.wait(run, progress=lambda current: looks.append(len(current.stages)))

        assert (end.state, end.n_failed) == (RunState.DONE, 0), ns.failures(run)
        assert looks
        assert (preview.estimate.pairs, run.n_queries, run.max_pairs) == (48, 12, 48)
        rows = ns.results(run).to_list()
        assert len(rows) == 48
        assert [row.final_rank for row in rows[:4]] == [1, 2, 3, 4]
        assert [row.item for row in ns.results(run, query=rows[0].query)] == [
            row.item for row in rows[:4]
        ]
        table = ns.results(run).to_arrow()
        assert table.column("item").to_pylist() == [row.item for row in rows]
        measured = ns.evaluate(run)
        assert measured.n_measured == 12
        assert 0 < measured.fine["recall@5"] <= 1
        assert ns.calibration(run).n_scored == 48
        page = ns.report(run, tmp_path / "run.html", n_queries=2)
        assert page.read_text().startswith("<!doctype html>")
        assert ns.run(run).progress.run.id == ns.runs(1)[0].run.id == run.run_id

        second = ns.rerank(replace(request, method="freeret", top_k=2))
        assert ns.wait(second).state is RunState.DONE
        assert {row.run_id for row in ns.results(second)} == {second.run_id}

        with pytest.raises(NotFoundError):
            ns.rerank(replace(request, catalog="elsewhere"))
        with pytest.raises(ConflictError):
            ns.results(index_run).to_list()
        with pytest.raises(NotFoundError):
            ns.wait(1_000_000)


def test_rankings_become_a_data_frame(indexed_night: Night, scenes: Path, scorer: str) -> None:
    pytest.importorskip("pandas")
    with api.connect(settings=indexed_night.settings) as ns:
        run = ns.rerank(
            api.RerankRequest(
                catalog="scenes", queries=str(scenes / "queries-text.jsonl"), scorer=scorer, top_k=1
            )
        )
        ns.wait(run).require_done()
        frame = ns.results(run).to_pandas()

    assert list(frame["final_rank"]) == [1] * 12


def test_the_example_script_does_a_whole_run(busy_night: Night, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "rerank_from_python.py")],
        env={**busy_night.environment(), "PYTHONPATH": ":".join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "imported 96 items" in done.stdout
    assert "60 rows" in done.stdout
    assert (tmp_path / "report.html").exists()
