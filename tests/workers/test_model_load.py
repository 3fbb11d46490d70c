"""A model whose load breaks down in a way that nobody foresaw ends its run, with the reason."""

from pathlib import Path

import pytest

from nightshift.models.describe import describe_embedder
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.stores.database import Database
from nightshift.stores.milvus import VectorStore
from tests.workers.night import Night

pytestmark = pytest.mark.night

_TEXTS = ["a red circle", "a blue square"]

_CANNOT_LOAD = """
from nightshift.models import cache
def load_embedder(*_, **__):
    raise KeyError("logit_scale")
cache.load_embedder = load_embedder
"""


@pytest.fixture
def night(night: Night) -> Night:
    """Two attempts are enough here."""
    night.settings = night.settings.model_copy(update={"max_attempts": 2, "lease_s": 6.0})
    night.stop()
    night.dispatcher()
    return night


def _index(night: Night, embedder: str, folder: Path) -> int:
    rows = folder / "texts.csv"
    rows.write_text("id,text\n" + "".join(f"item-{n},{one}\n" for n, one in enumerate(_TEXTS)))
    settings = night.settings
    assert settings.database_url
    assert settings.milvus_uri
    with (
        Database(settings.database_url.get_secret_value()) as database,
        VectorStore(settings.milvus_uri) as vectors,
    ):
        import_catalog(database, "texts", str(rows))
        facts = describe_embedder(embedder)
        return plan_index(database, vectors, "texts", embedder=facts, parts="text").run_id


def test_a_model_whose_load_breaks_down_fails_the_run(night: Night, embedder: str, tmp_path: Path):
    run_id = _index(night, embedder, tmp_path)
    worker = night.odd_worker(_CANNOT_LOAD)

    assert night.wait_for_run(run_id) == "failed"

    failures = night.rows("SELECT reason, message FROM failure WHERE run_id = :r", r=run_id)
    assert failures == [("model_error", "the model did not load: KeyError: 'logit_scale'")]
    assert night.rows("SELECT DISTINCT attempt FROM job") == [(2,)]
    assert worker.poll() is None, "it can work for other runs"
