"""Checks of models and devices on this machine, for `nightshift doctor` and workers that start."""

import subprocess
import sys
from collections.abc import Iterator, Sequence

from pydantic import TypeAdapter, ValidationError

from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.schema.findings import Finding, skipped
from nightshift.schema.models import ModelInUse
from nightshift.stores.models import models_in_use
from nightshift.stores.postgres.database import Database

__all__ = ["check_models", "require_device"]


def check_models(database: Database) -> Iterator[Finding]:
    """Check the devices of this machine, and every model that runs or indexes need."""
    wanted: list[ModelInUse] = []
    try:
        with database.begin() as connection:
            wanted += models_in_use(connection)
    except ServiceUnavailableError:
        yield skipped("model", "postgres")
    except NightshiftError as error:
        yield Finding(check="model", level="error", message=str(error))
    yield from _examined_elsewhere(wanted)


def _examined_elsewhere(models: Sequence[ModelInUse]) -> Iterator[Finding]:
    """Examine devices and models in another process: this one stays small, and survives it."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "nightshift.models.preflight"],
        input=TypeAdapter(Sequence[ModelInUse]).dump_json(models),
        capture_output=True,
        check=False,
    )
    try:
        yield from TypeAdapter(list[Finding]).validate_json(done.stdout)
    except ValidationError:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        yield Finding(
            check="gpu",
            level="error",
            message="devices and models could not be examined: their process ended with "
            f"{done.returncode} ({''.join(said)}); `{sys.executable} -c 'import torch'` shows more",
        )


def require_device(device: str) -> None:
    """Refuse a device that this machine lacks.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigurationError: It is not there.
    """
    if device in {"auto", "cpu"}:
        return
    from nightshift.models.devices import pick_device

    pick_device(device)
