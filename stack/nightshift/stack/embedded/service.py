"""The interface of a service of the stack, and where its package is installed."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from nightshift.schema.distribution import install_hint
from nightshift.schema.errors import ConfigurationError
from nightshift.stack.embedded.process import Launch, StopRule

__all__ = ["Service", "minimal_environment", "package_dir"]


class Service(Protocol):
    """A program of the stack that listens on a loopback port."""

    name: str
    stop_rule: StopRule

    def prepare(self) -> None:
        """Create what it needs, and end a leftover server of the same directory."""
        ...

    def launch(self) -> Launch:
        """Return the command line and the environment to start it with now."""
        ...

    def ready(self) -> bool:
        """Return True if it answers."""
        ...


def package_dir(package: str) -> Path:
    """The folder of an installed package that carries binaries; the package is not imported.

    Raises:
        ConfigurationError: When it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the embedded services need the package {package}, which is not installed: "
            f"{install_hint('embedded')}, or set NIGHTSHIFT_DATABASE_URL, NIGHTSHIFT_REDIS_URL and "
            "NIGHTSHIFT_MILVUS_URI"
        )
    return Path(spec.origin).parent


def minimal_environment() -> dict[str, str]:
    """The environment of a server: nothing of the user's."""
    return {"PATH": os.defpath, "LC_ALL": "C"}
