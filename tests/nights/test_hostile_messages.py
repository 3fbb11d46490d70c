"""Whatever else lies in Redis: a worker drops what is no doorbell, and goes on."""

import base64
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import redis

from nightshift.stores.broker.broker import TASK_NAME
from tests.nights.night import Night

# Every worker listens to it.
_QUEUE = "idle"
_JOB = {"run_id": 1, "job_id": 1}
_NO_ENVELOPES = [
    b"",
    b"no json",
    b"\xff\xfe\x00",
    b"[]",
    b"7",
    b'"text"',
    b"{}",
    b"[" * 100_000,
    b'{"properties": "text"}',
    b'{"properties": {}, "headers": {}}',
]


def _envelope(sent: object = ((), {}, {}), **changes: Any) -> bytes:
    """A message as Celery sends it, but for the changes."""
    fields: dict[str, Any] = {
        "body": base64.b64encode(json.dumps(sent).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": TASK_NAME, "id": "1"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": _QUEUE},
            "delivery_tag": "tag",
            "body_encoding": "base64",
        },
    }
    return json.dumps(fields | changes).encode()


def _hostile() -> list[bytes]:
    good = json.loads(_envelope())
    pickled = base64.b64encode(pickle.dumps({"run_id": 1})).decode()
    return [
        *_NO_ENVELOPES,
        _envelope(headers=[]),
        _envelope(headers={"task": ["a", "list"], "id": "1"}),
        _envelope(headers={"task": "os.system", "id": "1"}),
        _envelope(headers={"task": TASK_NAME, "id": {"a": 1}}),
        _envelope(properties={**good["properties"], "delivery_tag": {"a": 1}}),
        _envelope(properties={**good["properties"], "delivery_info": None}),
        _envelope(properties={**good["properties"], "body_encoding": "rot13"}),
        _envelope("no triple"),
        _envelope([1, 2, 3]),
        _envelope([[], {"run_id": "x", "job_id": None}, {}]),
        _envelope([[], {"run_id": 10**30, "job_id": -1}, {}]),
        _envelope([["x" * 5_000_000], {}, {}]),
        _envelope(body="%%%"),
        _envelope(**{"body": pickled, "content-type": "application/x-python-serialize"}),
        *(_unpacks_to_gigabytes(kind) for kind in ("gzip", "bzip2", "lzma", "application/zstd")),
        # These would be kept in memory, or would call other tasks.
        _envelope([[], _JOB, {}], headers={"task": TASK_NAME, "id": "1", "eta": "2199-01-01"}),
        _envelope([[], _JOB, {"chain": [{"task": TASK_NAME, "kwargs": _JOB}] * 50}]),
    ]


def _unpacks_to_gigabytes(compression: str) -> bytes:
    """Refused by its header: kombu would unpack it without any bound."""
    body = base64.b64encode(gzip.compress(b" " * 2**20)).decode()
    headers = {"task": TASK_NAME, "id": "1", "compression": compression}
    return _envelope(body=body, headers=headers)


def test_a_worker_drops_what_is_no_doorbell_and_goes_on(
    night: Night, embedder: str, tmp_path: Path
) -> None:
    assert night.settings.redis_url
    broker = redis.Redis.from_url(night.settings.redis_url.get_secret_value())
    hostile = _hostile()
    broker.lpush(_QUEUE, *hostile)
    # What a worker puts back at its start.
    left = {"no json": b"{", "no triple": b"[1]", "long": b'"' + b"x" * 9_000_000 + b'"'}
    broker.hset("unacked", mapping=left)  # type: ignore[arg-type]
    broker.zadd("unacked_index", dict.fromkeys(left, 1.0))
    (tmp_path / "texts.csv").write_text("id,text\none,a red circle\n")
    worker = night.worker()

    night.cli("catalog", "import", "texts", str(tmp_path / "texts.csv"), "--json")
    night.cli("index", "build", "texts", "--embedder", embedder, "--wait", "--json")

    def emptied() -> str | None:
        return None if broker.llen(_QUEUE) else "emptied"

    assert night.wait_until(emptied) == "emptied"
    assert worker.poll() is None, night.log_of(worker)
    assert night.log_of(worker).count("dropped a malformed message") >= len(_NO_ENVELOPES)
    assert "Traceback" not in night.log_of(worker), "Celery has seen none of it"
    night.stop()
    assert broker.hlen("unacked") == 0
