"""Milvus Lite as a server that asks for a token."""

import os
import signal
import socket
import sys
from pathlib import Path

from nightshift.stack.embedded.milvus_files import set_aside_damaged
from nightshift.stack.embedded.process import Launch, StopRule, end_strays
from nightshift.stack.embedded.state import HOST, StackState

__all__ = ["MilvusService"]

_SERVER_MODULE = "nightshift.stack.embedded.milvus_lite_server"
#: Part of the command line of the server, also of earlier versions.
_MARKER = "milvus_lite"


class MilvusService:
    """Milvus Lite behind our token: see `nightshift.stack.embedded.milvus_lite_server`."""

    name = "milvus"
    # On SIGTERM it ends abruptly.
    stop_rule = StopRule(stop_signal=signal.SIGINT, wait_s=30.0)

    def __init__(self, data_dir: Path, state: StackState) -> None:
        self._state = state
        self.directory = data_dir / "milvus"

    def prepare(self) -> None:
        """Create its directory, set damaged files aside and choose its port."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        end_strays(self.directory, _MARKER, self.stop_rule.stop_signal)
        set_aside_damaged(self.directory)
        self._state.port(self.name)

    def launch(self) -> Launch:
        """Return the command line and the environment to start it with now."""
        arguments = (str(self.directory), HOST, str(self._state.port(self.name)))
        return Launch(
            argv=(sys.executable, "-P", "-m", _SERVER_MODULE, *arguments),
            env={**os.environ, "NIGHTSHIFT_MILVUS_TOKEN": self._state.milvus_token},
            cwd=self.directory,
        )

    def ready(self) -> bool:
        """Return True if it accepts connections."""
        try:
            with socket.create_connection((HOST, self._state.port(self.name)), timeout=2):
                return True
        except OSError:
            return False
