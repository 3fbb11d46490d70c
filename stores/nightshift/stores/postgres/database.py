"""Postgres connections: one engine a process, one transaction a block, errors translated."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from io import StringIO
from threading import RLock
from types import TracebackType
from typing import Any, Self

import psycopg2
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError

from nightshift.schema.errors import NightshiftError, ServiceUnavailableError

__all__ = ["Database", "copy_into", "copy_rows"]

#: SQLSTATE of a statement that somebody cancelled, or that took longer than statement_timeout.
_CANCELLED = "57014"
#: SQLSTATE of a write to a server that has become a replica.
_READ_ONLY = "25006"
#: SQLSTATE classes: lost connections, want of disk, memory or connections, a server that is being
#: stopped or recovers, errors of its file system.
_OUTAGES = frozenset({"08", "53", "57", "58"})
#: So long a thread waits for its turn on the one connection of a process.
_LONGEST_TURN_S = 90.0


class Database:
    """A Postgres database by URL.

    Args:
        url: SQLAlchemy URL.
        application: Shown in `pg_stat_activity`.
        pool_size: Connections kept open.
        transaction_s: Seconds after which Postgres ends a transaction that is still open. A frozen
            process would otherwise keep its locks for ever. None for no limit.
        one_connection: True if the threads of this process take turns on one connection.
    """

    def __init__(
        self,
        url: str,
        *,
        application: str = "nightshift",
        pool_size: int = 4,
        transaction_s: float | None = None,
        one_connection: bool = False,
    ) -> None:
        limit = (
            {}
            if transaction_s is None
            else {"options": f"-c transaction_timeout={transaction_s:.0f}s"}
        )
        self.engine: Engine = create_engine(
            url,
            pool_size=1 if one_connection else pool_size,
            max_overflow=8,
            pool_pre_ping=True,
            use_native_hstore=False,  # it would look types up at each connect
            connect_args={"application_name": application, "connect_timeout": 10, **limit},
        )
        # A thread that begins a transaction inside another one gets a second connection.
        self._turn = RLock() if one_connection else None
        self._rests = False

    def rest(self) -> None:
        """Close the connection, and from now on after each use, until `wake` is called.

        Nothing happens where the connections are many.
        """
        if self._turn is not None:
            self._rests = True
            # Where another thread uses the connection, that thread closes it.
            if self._turn.acquire(blocking=False):
                self.engine.dispose()
                self._turn.release()

    def wake(self) -> None:
        """Keep the connection open from its next use on."""
        self._rests = False

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back on any exception.

        Raises:
            ServiceUnavailableError: When Postgres cannot be reached, went away, or lacks disk,
                memory or connections.
            NightshiftError: When somebody cancelled a statement.
        """
        with self._my_turn(), self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def sketch(self) -> Iterator[Connection]:
        """One transaction that is rolled back at the end of the block, whatever it wrote.

        Raises:
            ServiceUnavailableError: When Postgres cannot be reached, went away, or lacks disk,
                memory or connections.
            NightshiftError: When somebody cancelled a statement.
        """
        with self._my_turn(), self._translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection for several transactions; its temporary tables end with the block.

        The block begins the transactions itself; nothing is committed that it does not commit.

        Raises:
            ServiceUnavailableError: When Postgres cannot be reached, went away, or lacks disk,
                memory or connections.
            NightshiftError: When somebody cancelled a statement.
        """
        with self._my_turn(), self._translated(), self.engine.connect() as connection:
            connection.detach()  # closed at the end, not given to the next who asks
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=_LONGEST_TURN_S):
            raise ServiceUnavailableError(
                f"another thread has used the connection for {_LONGEST_TURN_S:.0f} s: check that "
                "Postgres answers (`nightshift status`)",
                "postgres",
            )
        try:
            yield
        finally:
            if self._rests:
                self.engine.dispose()
            self._turn.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        # COPY runs beside SQLAlchemy, which does not wrap its errors.
        try:
            yield
        except (DBAPIError, psycopg2.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if cause is None:
                raise
            if getattr(cause, "pgcode", None) == _CANCELLED:
                raise NightshiftError(
                    f"Postgres cancelled a statement: {_first_line(cause)}; see who cancels, and "
                    "whether its statement_timeout is long enough"
                ) from error
            if not _is_outage(cause):
                raise
            if getattr(cause, "pgcode", None) == _READ_ONLY:
                self.engine.dispose()  # the next connection may lead to the new primary
            raise ServiceUnavailableError(
                f"Postgres cannot be used: {_first_line(cause)}; check that it runs and that the "
                "URL is right (`nightshift status`)",
                "postgres",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_outage(error: BaseException) -> bool:
    """Check whether Postgres itself fails, so that the same statement may succeed later."""
    code = getattr(error, "pgcode", None) or ""
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return code != _CANCELLED  # deadlocks are among them
    # Where the connection breaks in the middle of an answer there is no code, and no subclass.
    broken = type(error) is psycopg2.DatabaseError and not code
    return broken or code[:2] in _OUTAGES or code == _READ_ONLY


def _first_line(error: BaseException) -> str:
    """The first line of a message; the rest quotes statements and rows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def copy_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> int:
    """COPY rows into a table through a staging table, ignoring keys that are there already.

    A rerun of the same job writes the same rows, so an existing key is not an error.

    Args:
        connection: Inside the transaction that also marks the job done.
        table: A table of ours.
        columns: Column names, in the order of each row's values.
        rows: None, bool, int, float, str or bytes values.

    Returns:
        The number of rows sent.
    """
    buffer, count = _copy_buffer(rows)
    if count == 0:
        return 0
    names = ", ".join(f'"{column}"' for column in columns)
    cursor = connection.connection.cursor()
    try:
        cursor.execute("DROP TABLE IF EXISTS staging")
        cursor.execute(
            f'CREATE TEMP TABLE staging ON COMMIT DROP AS SELECT {names} FROM "{table}" '
            "WITH NO DATA"
        )
        cursor.copy_expert(f"COPY staging ({names}) FROM STDIN", buffer)
        cursor.execute(
            f'INSERT INTO "{table}" ({names}) SELECT {names} FROM staging ON CONFLICT DO NOTHING'
        )
    finally:
        cursor.close()
    return count


def copy_into(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows straight into a table that refuses none of them.

    Args:
        connection: Inside a transaction.
        table: A table of ours.
        columns: Column names, in the order of each row's values.
        rows: None, bool, int, float, str or bytes values.
    """
    buffer, count = _copy_buffer(rows)
    if count == 0:
        return
    names = ", ".join(f'"{column}"' for column in columns)
    with closing(connection.connection.cursor()) as cursor:
        cursor.copy_expert(f'COPY "{table}" ({names}) FROM STDIN', buffer)


def _copy_buffer(rows: Iterable[Sequence[Any]]) -> tuple[StringIO, int]:
    buffer = StringIO()
    count = 0
    for row in rows:
        buffer.write("\t".join(map(_copy_text, row)) + "\n")
        count += 1
    buffer.seek(0)
    return buffer, count


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _copy_text(value: object) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value).translate(_ESCAPES)
