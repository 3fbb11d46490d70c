"""An item that kills every worker is named, and so is a model that does not load."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from nightshift.models.checkpoints.describe import describe_embedder
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database
from tests.nights.night import Night

# Eight deaths, each a lease long, and as many starts of a worker.
pytestmark = [pytest.mark.night, pytest.mark.timeout(900)]

_TEXTS = ["a red circle", "a blue square", "a green star", "POISON", "a white ring"]

#: As the kernel ends a process when memory runs out: no handler runs, nothing is given back.
_DIES_OF_POISON = """
import os, signal
from nightshift.models.embedders.dual_encoder import DualEncoder
embed_others = DualEncoder.prepare
def prepare(self, contents, side):
    if any("POISON" in text for content in contents for text in content.texts):
        os.kill(os.getpid(), signal.SIGKILL)
    return embed_others(self, contents, side)
DualEncoder.prepare = prepare
"""


_CANNOT_LOAD = """
from nightshift.models import cache
def load_embedder(*_, **__):
    raise KeyError("logit_scale")
cache.load_embedder = load_embedder
"""


_DIES_LOADING = """
import os, signal
from nightshift.models import cache
cache.load_embedder = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
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
    rows.write_text("id,text\n" + "".join(f"item-{n},{text}\n" for n, text in enumerate(_TEXTS)))
    settings = night.settings
    assert settings.database_url
    assert settings.milvus_uri
    assert settings.milvus_token
    with (
        Database(settings.database_url.get_secret_value()) as database,
        VectorStore(settings.milvus_uri, settings.milvus_token.get_secret_value()) as vectors,
    ):
        import_catalog(database, "texts", str(rows))
        facts = describe_embedder(embedder)
        return plan_index(database, vectors, "texts", embedder=facts, parts="text").run_id


@contextmanager
def _kept_alive(start: Callable[[], object]) -> Iterator[list[object]]:
    """Start two workers, and each again when it dies; yields all that were started."""
    ended = Event()
    started: list[object] = []

    def supervise() -> None:
        alive: list[object] = []
        while not ended.wait(0.2):
            alive = [process for process in alive if process.poll() is None]
            while len(alive) < 2:
                alive.append(start())
                started.append(alive[-1])

    thread = Thread(target=supervise)
    thread.start()
    try:
        yield started
    finally:
        ended.set()
        thread.join()


def test_an_item_that_kills_its_workers_fails_alone(night: Night, embedder: str, tmp_path: Path):
    run_id = _index(night, embedder, tmp_path)

    with _kept_alive(lambda: night.odd_worker(_DIES_OF_POISON)) as workers:
        assert night.wait_for_run(run_id, 400) == "done"

    done = night.rows("SELECT external_id FROM embedding JOIN item ON item.id = item_id ORDER BY 1")
    assert done == [("item-0",), ("item-1",), ("item-2",), ("item-4",)]
    ((name, reason, message),) = night.rows(
        "SELECT subject_id, reason, message FROM failure WHERE run_id = :r", r=run_id
    )
    assert (name, reason) == ("item-3", "worker_lost")
    assert "stopped responding during this job" in str(message)
    cut = night.rows("SELECT n_units, attempt FROM job WHERE state = 'split' ORDER BY id")
    assert cut == [(5, 2), (3, 2), (2, 2)]
    deaths = [worker.poll() for worker in workers]
    assert deaths.count(-9) == 4 * 2
    assert night.cli("verify", str(run_id), check=False).returncode == 0


def test_a_model_whose_load_breaks_down_fails_the_run(night: Night, embedder: str, tmp_path: Path):
    run_id = _index(night, embedder, tmp_path)
    worker = night.odd_worker(_CANNOT_LOAD)

    assert night.wait_for_run(run_id) == "failed"

    failures = night.rows("SELECT reason, message FROM failure WHERE run_id = :r", r=run_id)
    assert failures == [("model_error", "the model did not load: KeyError: 'logit_scale'")]
    assert night.rows("SELECT DISTINCT attempt FROM job") == [(2,)]
    assert worker.poll() is None, "it can work for other runs"


def test_a_model_that_ends_its_workers_fails_the_run_before_it_has_ended_many(
    night: Night, embedder: str, tmp_path: Path
):
    run_id = _index(night, embedder, tmp_path)

    with _kept_alive(lambda: night.odd_worker(_DIES_LOADING)) as workers:
        assert night.wait_for_run(run_id, 400) == "failed"
        deaths = [worker.poll() for worker in workers].count(-9)

    ((reason, message),) = night.rows(
        "SELECT reason, message FROM failure WHERE run_id = :r", r=run_id
    )
    assert reason == "worker_lost"
    assert embedder in str(message)
    # Two workers at a time, two attempts, and whoever began before the first was missed.
    assert 2 <= deaths <= 6
    assert night.rows("SELECT DISTINCT state, attempt FROM job") == [("queued", 0)]
