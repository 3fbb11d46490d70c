"""The open services of a client."""

from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from nightshift.api.services import open_database
from nightshift.schema.settings import Settings
from nightshift.stores.postgres.database import Database

__all__ = ["HasRunId", "ServiceConnection", "run_id_of"]


class HasRunId(Protocol):
    """A run, or what planning one returned."""

    @property
    def run_id(self) -> int:
        """Number of the run."""
        ...


class ServiceConnection:
    """The open services, and the settings that name them.

    Args:
        settings: Where the services are.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened = ExitStack()
        #: Postgres, for functions of other rooms.
        self.database: Database = self._opened.enter_context(open_database(settings))

    def close(self) -> None:
        """Close the connections; the end of a `with` block does it by itself."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run_id_of(run: int | HasRunId) -> int:
    """The number of a run."""
    return run if isinstance(run, int) else run.run_id
