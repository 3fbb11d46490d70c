"""The main job against a real Milvus standalone server in place of Milvus Lite."""

import json

import pytest

from nightshift.stores.milvus import VectorStore
from tests.workers.night import Night

pytestmark = pytest.mark.milvus_standalone


@pytest.mark.parametrize("index_type", ["FLAT", "HNSW"])
def test_the_main_job_runs_on_a_standalone_milvus(
    settings, milvus_standalone_uri, scenes, embedder, scorer, tmp_path, index_type
):
    logs = tmp_path / "logs"
    logs.mkdir()
    night = Night(
        settings=settings.model_copy(update={"milvus_uri": milvus_standalone_uri}), logs=logs
    )
    try:
        night.dispatcher()
        # Two at once: only on Milvus Lite do writers take turns.
        night.worker()
        night.worker()
        night.cli("catalog", "import", "scenes", str(scenes / "items.jsonl"), "--json")
        night.cli("index", "build", "scenes", "--embedder", embedder, "--index-type", index_type,
                  "--wait", "--json")  # fmt: skip

        done = night.cli("rerank", "scenes", "--queries", str(scenes / "queries-text.jsonl"),
                         "--scorer", scorer, "--top-k", "5", "--wait", "--json")  # fmt: skip

        run_id = json.loads(done.stdout)["run_id"]
        assert night.cli("verify", str(run_id)).returncode == 0
        counted = night.rows(
            "SELECT count(*), count(margin) FROM v_ranking WHERE run_id = :r", r=run_id
        )
        assert counted == [(60, 60)]
        held = night.rows("SELECT count(*) FROM lease WHERE name = 'milvus-writer'")
        assert held == [(0,)]
        with VectorStore(milvus_standalone_uri) as vectors:
            ((collection,),) = night.rows('SELECT collection FROM "index"')
            assert sum(len(page) for page in vectors.keys(str(collection))) == 96
            vectors.drop(str(collection))
    finally:
        night.stop()
