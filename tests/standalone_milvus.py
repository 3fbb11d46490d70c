"""A real Milvus standalone server, from the binary that the PyPI package `milvus` carries.

Its environment is `.venv-milvus`, apart from ours. Run as `python -m
tests.standalone_milvus PYTHON DATA_DIR` it serves until it is interrupted.
"""

import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pymilvus import MilvusClient, MilvusException

from nightshift.stack.embedded.state import port_is_free
from tests import compose

#: Of `root`, whom every server has. Milvus 2.6 takes it from the environment, as the compose file
#: gives it; this one is older and starts with its own.
PASSWORD, _PASSWORD_AT_FIRST = "only-for-tests", "Milvus"

#: Runs in the other environment: unpacks the server once, writes its configuration, becomes it.
_LAUNCH = """
import os, sys
from pathlib import Path
import milvus
data, metrics_port, etcd_port, peer_port, *ports = sys.argv[1:]
config = milvus.MilvusServerConfig(data_dir=data)
names = sorted(name for name in config.configurable_items if name.endswith("_port"))
config.update(**{**dict(zip(names, map(int, ports))), "proxy_port": int(ports[-1])})
for part in ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode"):
    config.set(part + ".ip", "127.0.0.1")
config.resolve()
# Left alone, its embedded etcd takes 2379 and 2380: one server a machine.
etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
Path(data, "etcd.yaml").write_text(
    f"listen-client-urls: {etcd}\\nadvertise-client-urls: {etcd}\\nlisten-peer-urls: {peer}\\n"
    f"initial-advertise-peer-urls: {peer}\\ninitial-cluster: default={peer}\\n"
)
server = Path(sys.prefix) / "milvus-server"
milvus._initialize_data_files(str(server))
os.chdir(data)
os.environ.update(
    DEPLOY_MODE="STANDALONE", METRICS_PORT=metrics_port, ETCD_CONFIG_PATH=data + "/etcd.yaml",
    LD_LIBRARY_PATH=str(server / "bin"),
    MILVUS_RUN_DIR=data + "/run", MALLOC_CONF="background_thread:true",
)
binary = str(server / "bin" / "milvus")
os.execv(binary, [binary, *os.environ["COMMAND"].split()[1:]])
"""


@dataclass(frozen=True, slots=True)
class MilvusServer:
    """Where it is, and what it asks for."""

    uri: str
    token: str


@contextmanager
def standalone_milvus(
    python: Path, data_dir: Path, start_s: float = 180.0
) -> Iterator[MilvusServer]:
    """Serve from `data_dir` by the compose file's command and security; stops at the end.

    Args:
        python: Of the environment that has the package `milvus`.
        data_dir: Made if it is not there.
        start_s: A start that takes longer is an error.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    metrics_port, *ports = _free_ports(14)
    argv = [str(python), "-c", _LAUNCH, str(data_dir), str(metrics_port), *map(str, ports)]
    reported = compose.SERVICES["milvus"]["environment"]
    secured = {
        name: value for name, value in reported.items() if name.endswith("AUTHORIZATIONENABLED")
    }
    environment = {**os.environ, **secured, "COMMAND": " ".join(compose.command("milvus"))}
    with (data_dir / "server.log").open("ab") as log:
        server = subprocess.Popen(
            argv, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        _await_health(server, metrics_port, time.monotonic() + start_s, data_dir / "server.log")
        uri = f"http://127.0.0.1:{ports[-1]}"
        _set_password(uri)
        yield MilvusServer(uri, f"root:{PASSWORD}")
    finally:
        server.terminate()
        try:
            server.wait(3)  # with a few collections it takes half a minute
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _await_health(server: subprocess.Popen[bytes], port: int, deadline: float, log: Path) -> None:
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                if answer.read().strip() == b"OK":
                    return
        except OSError:
            pass
        time.sleep(0.2)
    tail = log.read_text(errors="replace")[-3000:]
    raise RuntimeError(f"Milvus standalone did not start; the end of its log:\n{tail}")


def _set_password(uri: str) -> None:
    with suppress(MilvusException):  # it was set when the server ran before
        client = MilvusClient(uri, token=f"root:{_PASSWORD_AT_FIRST}", dedicated=True)
        client.update_password("root", _PASSWORD_AT_FIRST, PASSWORD)
        client.close()


def _free_ports(count: int) -> list[int]:
    # Below the ephemeral range, where no outgoing connection takes them before the server does.
    return [port for port in random.sample(range(20_000, 32_000), 200) if port_is_free(port)][
        :count
    ]


if __name__ == "__main__":
    with standalone_milvus(Path(sys.argv[1]), Path(sys.argv[2]).absolute()) as milvus:
        sys.stdout.write(f"{milvus.uri} {milvus.token}\n")
        sys.stdout.flush()
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            os.write(2, b"stopping\n")
