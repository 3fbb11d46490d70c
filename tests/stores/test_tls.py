"""Each service may be reached by TLS, and a server that cannot prove who it is is refused."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import make_url, text

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stack import Stack
from nightshift.stores.broker.broker import Broker, make_celery
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.postgres.database import Database
from tests.tls import make_certificate, tls_before


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that signed nothing of ours."""
    return make_certificate(tmp_path_factory.mktemp("foreign"), "localhost")[0]


@pytest.fixture
def secure_redis(redis_url: str, certificate: tuple[Path, Path]) -> Iterator[str]:
    """URL of Redis behind TLS, up to the authority's file."""
    url = make_url(redis_url)
    with tls_before(url.port or 0, *certificate) as port:
        yield f"rediss://:{url.password}@localhost:{port}/{url.database}?ssl_ca_certs="


def test_doorbells_ring_and_are_heard_over_tls(
    redis_url: str, secure_redis: str, certificate: tuple[Path, Path]
):
    broker = Broker(f"{secure_redis}{certificate[0]}")
    broker.ring("rank", 1, 2)

    assert broker.waiting("rank") == 1
    broker.close()
    app = make_celery(f"{secure_redis}{certificate[0]}")
    with app.connection_for_read() as connection, connection.SimpleQueue("rank") as queue:
        message = queue.get(timeout=120)
        assert message.payload[1] == {"run_id": 1, "job_id": 2}
        message.ack()
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("rank") == 0


def test_redis_with_a_certificate_of_nobody_is_refused(secure_redis: str, foreign: Path):
    broker = Broker(f"{secure_redis}{foreign}")

    with pytest.raises(ServiceUnavailableError, match="certificate verify failed"):
        broker.waiting("rank")
    with pytest.raises(ServiceUnavailableError, match="certificate verify failed"):
        broker.ring("rank", 1, 2)
    broker.close()


def test_postgres_is_used_over_tls_and_only_of_the_right_name(
    database_url: str, certificate: tuple[Path, Path], foreign: Path
):
    url = make_url(database_url)
    with tls_before(url.port or 0, *certificate, postgres=True) as port:
        secure = url.set(
            host="localhost",
            port=port,
            query={"sslmode": "verify-full", "sslrootcert": str(certificate[0])},
        )
        with Database(secure.render_as_string(False)) as database, database.begin() as connection:
            assert connection.execute(text("SELECT count(*) FROM item")).scalar_one() == 0
        unknown = secure.update_query_dict({"sslrootcert": str(foreign)})
        with (
            Database(unknown.render_as_string(False)) as database,
            pytest.raises(ServiceUnavailableError, match="certificate verify failed"),
            database.begin(),
        ):
            pass


def test_milvus_is_used_over_tls_with_an_authority_of_ones_own(
    stack: Stack, certificate: tuple[Path, Path], foreign: Path
):
    port = int(stack.urls().milvus_uri.rpartition(":")[2])
    token = stack.urls().milvus_token
    program = (
        "import sys; from nightshift.stores.index.milvus import VectorStore\n"
        "with VectorStore(*sys.argv[1:], patience_s=1) as store: print(store.collections())"
    )
    with tls_before(port, *certificate) as secure:

        def collections(authority: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", program, f"https://localhost:{secure}", token],
                env={**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(authority)},
                capture_output=True,
                text=True,
                check=False,
            )

        known, unknown = collections(certificate[0]), collections(foreign)

    with VectorStore(stack.urls().milvus_uri, stack.urls().milvus_token) as plain:
        there = plain.collections()
    assert (known.returncode, known.stdout) == (0, f"{there}\n"), known.stderr
    assert unknown.returncode == 1
    assert "ServiceUnavailableError" in unknown.stderr
