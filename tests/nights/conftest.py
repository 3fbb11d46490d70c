import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import make_url

from nightshift.demo import coarse_dir, scorer_dir, write_catalogue
from nightshift.schema.settings import Settings
from nightshift.stack import Stack
from nightshift.stores.index.milvus import VectorStore
from tests.nights.night import Night


@pytest.fixture(scope="module")
def own_collections(stack: Stack) -> Iterator[None]:
    """Drops what a module leaves in Milvus: later databases begin with the same ids."""
    yield
    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as store:
        for collection in store.collections():
            store.drop(collection)


@pytest.fixture
def night(settings: Settings, tmp_path: Path, own_collections: None) -> Iterator[Night]:
    """A dispatcher is running; workers are each test's own to start."""
    quick = settings.model_copy(update={"lease_s": 6.0, "grace_s": 5.0})
    yield from _night(quick, tmp_path / "logs")


@pytest.fixture(scope="module")
def busy_night(
    stack: Stack,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
    own_collections: None,
) -> Iterator[Night]:
    """A night with a worker that the tests of a module share; each makes runs of its own."""
    name = f"module_{uuid4().hex[:8]}"
    url = make_url(stack.urls().database_url)
    connection = psycopg2.connect(url.set(drivername="postgresql").render_as_string(False))
    connection.autocommit = True
    connection.cursor().execute(
        f"CREATE DATABASE {name} TEMPLATE {make_url(template_database).database}"
    )
    settings = Settings(
        _env_file=None,
        data_dir=stack.data_dir,
        database_url=url.set(database=name).render_as_string(hide_password=False),
        # The last of Redis' sixteen databases; the other tests take turns on 1 to 15.
        redis_url=stack.urls().redis_url.removesuffix("/0") + "/0",
        milvus_uri=stack.urls().milvus_uri,
        milvus_token=stack.urls().milvus_token,
    )
    for night in _night(settings, tmp_path_factory.mktemp("night") / "logs"):
        night.worker()
        yield night
    connection.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


@pytest.fixture(scope="module")
def indexed_night(busy_night: Night, scenes: Path, embedder: str) -> Night:
    """A night whose catalogue `scenes` is indexed by its images."""
    busy_night.cli("catalog", "import", "scenes", str(scenes / "items.jsonl"), "--json")
    done: subprocess.CompletedProcess[str] = busy_night.cli(
        "index", "build", "scenes", "--embedder", embedder, "--wait", "--json"
    )
    assert json.loads(done.stdout)["state"] == "done"
    return busy_night


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn catalogue: 96 images with captions, 12 queries a direction."""
    folder = tmp_path_factory.mktemp("scenes")
    write_catalogue(folder, items=96, queries=12)
    return folder


@pytest.fixture(scope="session")
def embedder() -> str:
    return f"open_clip:{coarse_dir()}"


@pytest.fixture(scope="session")
def scorer() -> str:
    return f"hf:{scorer_dir()}"


def _night(settings: Settings, logs: Path) -> Iterator[Night]:
    logs.mkdir()
    night = Night(settings=settings, logs=logs)
    night.dispatcher()
    yield night
    night.stop()
