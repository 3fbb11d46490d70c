"""Connections to the services: opened once, checked once, closed at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING

from nightshift.schema.settings import Settings
from nightshift.stores.postgres.database import Database

if TYPE_CHECKING:
    from nightshift.stores.index.milvus import VectorStore

__all__ = ["Services", "open_database", "open_services", "open_vectors", "wait_for_database"]

#: How long a process that starts together with Postgres waits for it.
_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Postgres and Milvus, which planning needs."""

    database: Database
    vectors: "VectorStore"


@contextmanager
def open_database(settings: Settings, *, application: str = "nightshift") -> Iterator[Database]:
    """Postgres, at the revision that this program needs.

    Args:
        settings: Where it is.
        application: Who is connected, for Postgres to show.

    Raises:
        ConfigurationError: When no database is configured and no embedded stack runs.
        DatabaseBehindError: When migrations are missing.
    """
    from nightshift.migrations import require_current
    from nightshift.stack import resolve_database_url

    url = resolve_database_url(settings)
    require_current(url)
    with Database(url, application=application) as database:
        yield database


@contextmanager
def open_vectors(settings: Settings, *, patience_s: float = 60.0) -> "Iterator[VectorStore]":
    """Milvus.

    Args:
        settings: Where it is.
        patience_s: How long an outage of Milvus is waited out.

    Raises:
        ConfigurationError: When a service is not configured and no embedded stack runs.
    """
    from nightshift.stack import resolve_urls
    from nightshift.stores.index.milvus import VectorStore

    urls = resolve_urls(settings)
    with VectorStore(urls.milvus_uri, urls.milvus_token, patience_s=patience_s) as vectors:
        yield vectors


@contextmanager
def open_services(
    settings: Settings, *, patience_s: float = 60.0, application: str = "nightshift"
) -> Iterator[Services]:
    """Postgres and Milvus.

    Args:
        settings: Where they are.
        patience_s: How long an outage of Milvus is waited out.
        application: Who is connected, for Postgres to show.
    """
    with (
        open_database(settings, application=application) as database,
        open_vectors(settings, patience_s=patience_s) as vectors,
    ):
        yield Services(database=database, vectors=vectors)


def wait_for_database(url: str) -> None:
    """Return once Postgres answers, at the revision that this program needs.

    Raises:
        DatabaseBehindError: When migrations are missing.
        ServiceUnavailableError: When Postgres does not answer for a minute.
    """
    from nightshift.migrations import require_current
    from nightshift.schema.errors import ServiceUnavailableError

    deadline = monotonic() + _START_S
    while True:
        try:
            return require_current(url)
        except ServiceUnavailableError:
            if monotonic() > deadline:
                raise
        sleep(0.5)
