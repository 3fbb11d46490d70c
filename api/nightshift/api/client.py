"""The client of a Nightshift: one method for each thing that a command does."""

from pathlib import Path

from nightshift.api.catalog_methods import CatalogMethods
from nightshift.api.planning_methods import PlanningMethods
from nightshift.api.reading_methods import ReadingMethods
from nightshift.api.retention_methods import RetentionMethods
from nightshift.api.steering_methods import SteeringMethods
from nightshift.schema.errors import ConfigurationError
from nightshift.schema.settings import Settings, read_settings

__all__ = ["Nightshift", "connect"]


def connect(
    data_dir: Path | str | None = None, *, settings: Settings | None = None
) -> "Nightshift":
    """Connect to the services; a dispatcher and a worker must run elsewhere to do the work.

    Args:
        data_dir: Home of the embedded stack that `nightshift up` started.
        settings: All settings, such as the URLs of the services, in place of `data_dir`. Without
            both, the environment (`NIGHTSHIFT_…`) and `.env` decide.

    Returns:
        A context manager; it closes the connections when its block ends.

    Example:
        >>> with api.connect("~/nightshift") as ns:
        ...     print(len(ns.runs()))
        12

    Raises:
        ConfigurationError: Both are given, a setting is malformed, or no database is configured
            and no embedded stack runs.
        ServiceUnavailableError: Postgres cannot be reached.
        DatabaseBehindError: Migrations are missing.
    """
    if settings is None:
        settings = read_settings(None if data_dir is None else Path(data_dir).expanduser())
    elif data_dir is not None:
        raise ConfigurationError("connect takes data_dir or settings, not both")
    return Nightshift(settings)


class Nightshift(
    CatalogMethods, PlanningMethods, SteeringMethods, ReadingMethods, RetentionMethods
):
    """A connection to the services of a Nightshift, made by `connect`.

    Wherever a run is expected, its number or what planning it returned will do.

    Args:
        settings: Where the services are.
    """
