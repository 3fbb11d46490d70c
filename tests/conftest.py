"""Real services for every test: one embedded stack a session, a fresh database and Redis a test."""

import os
import subprocess
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path

import hypothesis
import psycopg2
import pytest
import redis
from sqlalchemy import make_url

from nightshift.migrations import upgrade
from nightshift.schema.settings import Settings
from nightshift.stack import Stack
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database
from tests.standalone_milvus import MilvusServer, standalone_milvus
from tests.tls import make_certificate

# What the developer has set up must not leak into the tests, nor the tests into it.
for _name in [name for name in os.environ if name.startswith("NIGHTSHIFT_")]:
    del os.environ[_name]
# Sources of the tests name images in other folders of theirs.
os.environ["NIGHTSHIFT_IMAGE_ROOTS"] = tempfile.gettempdir()
# Several processes run tests, each with services beside it: threads of torch that share a core wait
# for each other at every barrier, and tests of models took ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"

# How fast an input is drawn or tried says how busy the machine is. A test with settings of its own
# inherits these; one that suppresses further health checks names `too_slow` among them.
hypothesis.settings.register_profile(
    "patient",
    parent=hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

# Long modules: begun last, one would keep a process busy while the others have nothing left to do.
_FIRST = ("nights", "benchmarks", "workers", "stores")

_numbers = count(1)
_redis_numbers = cycle(range(1, 16))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the rooms whose tests take longest."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in _FIRST)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A connected fresh database."""
    with Database(database_url) as opened:
        yield opened


@pytest.fixture
def tls_certificate(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Makes certificate and key of a host; the certificate is its own authority."""
    return lambda host: make_certificate(tmp_path, host)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The embedded services, without dispatcher and workers."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        stack = Stack(Path(folder))
        try:
            stack.up(0, dispatcher=False)
            yield stack
        finally:
            stack.down()


@pytest.fixture(scope="session")
def template_database(stack: Stack) -> str:
    """URL of a migrated database that nobody is connected to."""
    _administer(stack, "CREATE DATABASE template_nightshift")
    url = _database_url(stack, "template_nightshift")
    upgrade(url)
    return url


@pytest.fixture
def database_url(stack: Stack, template_database: str) -> Iterator[str]:
    """A fresh, migrated database."""
    with _migrated_database(stack) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database_url(stack: Stack, template_database: str) -> Iterator[str]:
    """A migrated database for all tests of a module, each of which takes back what it writes."""
    with _migrated_database(stack) as url:
        yield url


@pytest.fixture
def empty_database_url(stack: Stack) -> Iterator[str]:
    """A fresh database without any table."""
    name = f"empty_{next(_numbers)}"
    _administer(stack, f"CREATE DATABASE {name}")
    yield _database_url(stack, name)
    _administer(stack, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(stack: Stack) -> Iterator[str]:
    """A Redis database of its own, empty."""
    url = stack.urls().redis_url.removesuffix("/0") + f"/{next(_redis_numbers)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def vector_store(stack: Stack) -> Iterator[VectorStore]:
    """Milvus Lite, without any collection; those that the test makes are dropped."""
    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as store:
        yield store
        stack.up(0, dispatcher=False)  # in case the test failed while it had killed a service
        for collection in store.collections():
            store.drop(collection)


@pytest.fixture(scope="session")
def milvus_standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A real Milvus standalone server that asks for a password."""
    home = Path(__file__).parent.parent / ".venv-milvus"
    python = home / "bin" / "python"
    if not any(home.glob("lib/python*/site-packages/milvus")):
        if not os.environ.get("CI"):
            pytest.skip("there is no Milvus server in .venv-milvus: `make test` installs it")
        venv.create(home, with_pip=True)
        install = [python, "-m", "pip", "install", "--only-binary", ":all:", "milvus>=2.3.5,<2.4"]
        subprocess.run(install, check=True)
    with standalone_milvus(python, tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def settings(
    stack: Stack, database_url: str, redis_url: str, vector_store: VectorStore
) -> Settings:
    """Settings of a process that works on this test's database, Redis and Milvus."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        data_dir=stack.data_dir,
        database_url=database_url,  # type: ignore[arg-type]
        redis_url=redis_url,  # type: ignore[arg-type]
        milvus_uri=stack.urls().milvus_uri,
        milvus_token=stack.urls().milvus_token,  # type: ignore[arg-type]
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def _migrated_database(stack: Stack) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _administer(stack, f"CREATE DATABASE {name} TEMPLATE template_nightshift")
    yield _database_url(stack, name)
    _administer(stack, f"DROP DATABASE {name} WITH (FORCE)")


def _database_url(stack: Stack, name: str) -> str:
    url = make_url(stack.urls().database_url).set(database=name)
    return url.render_as_string(hide_password=False)


def _administer(stack: Stack, statement: str) -> None:
    url = make_url(stack.urls().database_url)
    connection = psycopg2.connect(url.set(drivername="postgresql").render_as_string(False))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
