"""Checks of models and devices on this machine, for `nightshift doctor` and workers that start."""

from collections.abc import Iterator

from nightshift.models.preflight.doctor import examine_devices, examine_models
from nightshift.schema.errors import NightshiftError, ServiceUnavailableError
from nightshift.schema.findings import Finding, skipped
from nightshift.stores.models import models_in_use
from nightshift.stores.postgres.database import Database

__all__ = ["check_models", "require_device"]


def check_models(database: Database) -> Iterator[Finding]:
    """Check the devices of this machine, and every model that runs or indexes need."""
    yield from examine_devices()
    try:
        with database.begin() as connection:
            wanted = models_in_use(connection)
    except ServiceUnavailableError:
        yield skipped("model", "postgres")
    except NightshiftError as error:
        yield Finding(check="model", level="error", message=str(error))
    else:
        yield from examine_models(wanted)


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
