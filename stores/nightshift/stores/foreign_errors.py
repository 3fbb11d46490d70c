"""Translate errors of libraries and of the system that reached a command."""

import errno
from collections.abc import Iterator

from nightshift.schema.distribution import EXTRA_OF_PACKAGE, install_hint
from nightshift.schema.errors import (
    ConfigurationError,
    ConflictError,
    DatabaseBehindError,
    NightshiftError,
    ServiceUnavailableError,
)

__all__ = ["translated_foreign"]

_CONFLICT = "another command changed the same thing at the same moment: run this one again"
_LOGIN = "Postgres refuses the user or the password: check NIGHTSHIFT_DATABASE_URL"
_NO_DATABASE = "Postgres has no such database: check NIGHTSHIFT_DATABASE_URL"
_ROLE = "this role of Postgres may not do that: name another one in NIGHTSHIFT_DATABASE_URL"
_LACKING = "the database lacks a table or a column: run `nightshift db upgrade`"
_READ_ONLY = "Postgres takes no writes, as a replica does: check NIGHTSHIFT_DATABASE_URL"
_FULL = "Postgres lacks memory, disk or connections: make room, then run this command again"
_DISK = "Postgres has trouble with its disk: look at its log"
_SLOW = "Postgres ended a statement that took too long: run this command again"
_TOO_LARGE = "a number is larger than Postgres holds: give a smaller one"
_HELD = "another command holds what this one needs: run it again later"

#: SQLSTATE, or its class (the first two characters) → error and message; an empty message means
#: that the service cannot be reached.
_SQL_STATES: dict[str, tuple[type[NightshiftError], str]] = {
    "22003": (ConfigurationError, _TOO_LARGE),
    "42501": (ConfigurationError, _ROLE),
    "42P01": (DatabaseBehindError, _LACKING),
    "42703": (DatabaseBehindError, _LACKING),
    "25006": (ServiceUnavailableError, _READ_ONLY),
    "28": (ConfigurationError, _LOGIN),
    "3D": (ConfigurationError, _NO_DATABASE),
    "23503": (ConflictError, _CONFLICT),
    "23505": (ConflictError, _CONFLICT),
    "40": (ConflictError, _CONFLICT),
    "55": (ConflictError, _HELD),
    "57014": (ServiceUnavailableError, _SLOW),
    "08": (ServiceUnavailableError, ""),
    "53": (ServiceUnavailableError, _FULL),
    "57": (ServiceUnavailableError, ""),
    "58": (ServiceUnavailableError, _DISK),
}

_AWAY = {
    "postgres": "Postgres cannot be reached",
    "redis": "Redis cannot be used",
    "milvus": "Milvus cannot be used",
}
_SYSTEM = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the quota of the disk is used up: make room",
    errno.EROFS: "it lies on a file system that takes no writes",
    errno.EACCES: "access is denied: check the rights of its folder and of this user",
    errno.EPERM: "this user may not do that",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n`)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "the machine lacks memory",
    errno.ENOENT: "there is no such file or folder, and none can be made there",
    errno.EEXIST: "it is there already, and is no folder",
    errno.ENOTDIR: "a part of its path is no folder",
    errno.ENAMETOOLONG: "its path is too long",
    errno.ELOOP: "its path leads in a circle of links",
}


def translated_foreign(error: BaseException) -> NightshiftError | None:
    """Translate an error of a service or of the system; None if it is a fault of this program.

    The message repeats neither SQL nor values. Libraries are recognised by class names:
    importing them here would slow down every command.
    """
    names = set(_names(error))
    if "sqlalchemy.exc.SQLAlchemyError" in names or "psycopg2.Error" in names:
        return _of_postgres(error, names)
    if names & {"redis.exceptions.RedisError", "kombu.exceptions.OperationalError"}:
        return _away("redis")
    if names & {"grpc.RpcError", "pymilvus.exceptions.MilvusException"}:
        return _away("milvus")
    return _of_python(error)


def _of_python(error: BaseException) -> NightshiftError | None:
    """A missing package of an extra, a lack of memory, or a refusal of the operating system."""
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(error)
    if isinstance(error, MemoryError):
        return NightshiftError(
            "there is not enough memory: end other programs, or give this command less to do"
        )
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        place = f"{error.filename}: " if error.filename is not None else ""
        return NightshiftError(f"{place}{_SYSTEM[error.errno]}")
    return None


def _missing_package(error: ModuleNotFoundError) -> ConfigurationError | None:
    """A missing package of an extra; None for any other, which would be a fault of ours."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRA_OF_PACKAGE.get(package)
    if extra is None:
        return None
    return ConfigurationError(
        f"this needs the package {package}, which is not installed: {install_hint(extra)}"
    )


def _of_postgres(error: BaseException, names: set[str]) -> NightshiftError | None:
    original = getattr(error, "orig", None) or error
    state = str(getattr(original, "pgcode", None) or "")
    kind, message = _SQL_STATES.get(state) or _SQL_STATES.get(state[:2]) or (None, "")
    lost = {"OperationalError", "InterfaceError"}
    away = any(name.rpartition(".")[2] in lost for name in {*names, *_names(original)})
    if kind is None and not state and (away or "sqlalchemy.exc.TimeoutError" in names):
        kind = ServiceUnavailableError
    if kind is ServiceUnavailableError:
        return _away("postgres") if not message else ServiceUnavailableError(message, "postgres")
    return kind(message) if kind else None


def _away(service: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"{_AWAY[service]}: check that it runs (`nightshift status`), and start it again with "
        "`nightshift up`",
        service,
    )


def _names(error: BaseException) -> Iterator[str]:
    for kind in type(error).__mro__:
        yield f"{kind.__module__}.{kind.__qualname__}"
