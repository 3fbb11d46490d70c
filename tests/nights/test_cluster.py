"""docker-compose.yml without its containers: its commands, flags, roles, passwords and checks.

Of its services only etcd and MinIO are missing: this Milvus standalone brings its own.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
import redis
from sqlalchemy import URL

from nightshift.schema.settings import Settings
from nightshift.stack.embedded.state import port_is_free
from nightshift.stores.index.milvus import VectorStore
from tests import compose
from tests.nights.night import Night
from tests.standalone_milvus import PASSWORD, MilvusServer

#: The operator's `.env`.
VALUES = {
    **{name: f"w{uuid4().hex}" for name, *_ in compose.VARIABLE.findall(compose.TEXT)},
    "MILVUS_PASSWORD": PASSWORD,
}


@pytest.fixture(scope="module")
def admin() -> Iterator[URL]:
    """The administrator of a Postgres in which the roles are made and nothing else."""
    with compose.postgres() as url:
        compose.make_roles(url, VALUES)
        yield url


def test_postgres_is_healthy_and_has_the_flags_of_the_file(admin):
    flags = [word.partition("=") for word in compose.command("postgres") if "=" in word]
    healthy = compose.is_healthy(
        compose.SERVICES["postgres"]["healthcheck"]["test"],
        {"PATH": str(compose.POSTGRES_PROGRAMS), "PGPORT": str(admin.port)},
    )
    connection = psycopg2.connect(admin.set(drivername="postgresql").render_as_string(False))
    with connection.cursor() as cursor:
        results = []
        for name, _, _ in flags:
            cursor.execute(f"SHOW {name}")
            results.append((name, "=", *cursor.fetchone()))
    connection.close()

    assert healthy
    assert results == flags
    assert ("synchronous_commit", "=", "on") in results


def test_redis_asks_for_its_password_and_forgets_nothing_in_a_crash(tmp_path):
    port = _free_port()
    check = [
        word.replace("redis-cli", f"redis-cli -p {port}")
        for word in compose.SERVICES["redis"]["healthcheck"]["test"]
    ]
    known = compose.environment("redis", VALUES, {})
    server = compose.start_redis(tmp_path, port, VALUES)
    try:
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        healthy = [
            compose.is_healthy(check, environment)
            for environment in (known, {**known, "REDISCLI_AUTH": "wrong"})
        ]
        with (
            pytest.raises(redis.AuthenticationError),
            redis.Redis(port=port) as stranger,
        ):
            stranger.ping()
        client = redis.Redis(port=port, password=VALUES["REDIS_PASSWORD"], decode_responses=True)
        wanted = ("appendonly", "appendfsync", "maxmemory-policy", "dir")
        settings = {name: client.config_get(name)[name] for name in wanted}
        client.set("doorbell", "rung")
        server.kill()
        server.wait()
        server = compose.start_redis(tmp_path, port, VALUES)
        kept = client.get("doorbell")
        client.close()
    finally:
        server.kill()
        server.wait()

    assert healthy == [True, False]
    assert VALUES["REDIS_PASSWORD"] not in arguments
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "dir": str(tmp_path),
    }
    assert kept == "rung"


@pytest.fixture(scope="module")
def cluster(
    admin: URL, milvus_standalone: MilvusServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Night]:
    """The programs of the file, each by its own command and environment."""
    folder = tmp_path_factory.mktemp("cluster")
    port = _free_port()
    addresses = {
        "postgres:5432/nightshift": f"127.0.0.1:{admin.port}/nightshift",
        "redis:6379": f"127.0.0.1:{port}",
        "http://milvus:19530": milvus_standalone.uri,
    }
    reported = compose.environment("worker-cpu", VALUES, addresses)
    settings = {
        name.removeprefix("NIGHTSHIFT_").lower(): value
        for name, value in reported.items()
        if name.startswith("NIGHTSHIFT_")
    }
    night = Night(settings=Settings(_env_file=None, data_dir=folder, **settings), logs=folder)
    server = compose.start_redis(folder, port, VALUES)
    try:
        check = compose.SERVICES["dispatcher"]["healthcheck"]["test"]
        healthy = [compose.is_healthy(check, reported)]
        migrated = compose.run(
            compose.command("migrate"), compose.environment("migrate", VALUES, addresses)
        )
        assert migrated.returncode == 0, migrated.stderr
        healthy.append(compose.is_healthy(check, reported))
        assert healthy == [False, True], "only a migrated database lets a dispatcher work"
        night.program(compose.command("dispatcher"))
        # Scaled to two: only on Milvus Lite do writers take turns.
        night.program(compose.command("worker-cpu"))
        night.program(compose.command("worker-cpu"))
        yield night
    finally:
        night.stop()
        server.kill()
        server.wait()


@pytest.mark.milvus_standalone
@pytest.mark.parametrize("index_type", ["FLAT", pytest.param("HNSW", marks=pytest.mark.night)])
def test_the_main_job_runs_on_the_cluster(
    cluster, milvus_standalone, scenes, embedder, scorer, index_type
):
    catalog = f"scenes-{index_type.lower()}"
    cluster.cli("catalog", "import", catalog, str(scenes / "items.jsonl"), "--json")
    cluster.cli("index", "build", catalog, "--embedder", embedder, "--index-type", index_type,
                "--wait", "--json")  # fmt: skip

    done = cluster.cli("rerank", catalog, "--queries", str(scenes / "queries-text.jsonl"),
                       "--scorer", scorer, "--top-k", "5", "--wait", "--json")  # fmt: skip

    run_id = json.loads(done.stdout)["run_id"]
    assert cluster.cli("verify", str(run_id)).returncode == 0
    counted = cluster.rows(
        "SELECT count(*), count(margin) FROM v_ranking WHERE run_id = :r", r=run_id
    )
    assert counted == [(60, 60)]
    held = cluster.rows("SELECT count(*) FROM lease WHERE name = 'milvus-writer'")
    assert held == [(0,)]
    with VectorStore(milvus_standalone.uri, milvus_standalone.token) as vectors:
        ((collection,),) = cluster.rows(
            'SELECT collection FROM "index" WHERE index_type = :t', t=index_type
        )
        assert sum(len(page) for page in vectors.keys(str(collection))) == 96
        vectors.drop(str(collection))


def _free_port() -> int:
    return next(
        number for number in random.sample(range(20_000, 32_000), 200) if port_is_free(number)
    )
