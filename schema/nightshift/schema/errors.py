"""All errors of Nightshift, each with an exit code.

They take positional arguments, so that they can be pickled.
"""

from collections.abc import Callable

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "DatabaseBehindError",
    "InputError",
    "LeaseLostError",
    "ModelError",
    "NightshiftError",
    "NotFoundError",
    "RequestError",
    "ServiceUnavailableError",
]


class NightshiftError(Exception):
    """An error that the caller can act on: the message names thing, reason and remedy."""

    #: Exit code of the command line.
    exit_code = 1

    def __init__(self, message: str = "", *args: object) -> None:
        super().__init__(message or (self.__doc__ or ""), *args)
        self.message: str = message or (self.__doc__ or "")

    def __str__(self) -> str:
        return self.message


class ConfigurationError(NightshiftError):
    """A setting or option is missing, malformed or contradicts another."""

    exit_code = 2


class RequestError(ConfigurationError):
    """A field of a request has a value that is not allowed.

    Args:
        reason: Why the value is not allowed; it names no field and no option.
        field: The field, such as `top_k`; empty if the fields contradict each other.
        remedies: Fields and values that would be allowed, such as `("quantum", "0")`; any of them
            is enough.
    """

    def __init__(
        self, reason: str = "", field: str = "", remedies: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(reason, field, remedies)
        self.reason, self.field, self.remedies = reason, field, remedies
        if reason:
            self.message = self.describe(str, "{}={}")

    def describe(self, name: Callable[[str], str], assignment: str) -> str:
        """The message, with other names for the fields.

        Args:
            name: The name of a field where the message is read, such as `--top-k`.
            assignment: How a name and a value are written, such as `{} {}`.
        """
        begin = f"{name(self.field)}: {self.reason}" if self.field else self.reason
        ways = " or ".join(assignment.format(name(field), value) for field, value in self.remedies)
        return f"{begin}; set {ways}" if ways else begin


class NotFoundError(NightshiftError):
    """The named thing does not exist."""

    exit_code = 3


class ConflictError(NightshiftError):
    """The request contradicts stored data."""

    exit_code = 4


class DatabaseBehindError(NightshiftError):
    """The database does not have the schema of this program: run `nightshift db upgrade`."""

    exit_code = 5


class ServiceUnavailableError(NightshiftError):
    """Postgres, Redis or Milvus cannot be reached; the work is kept and retried.

    Args:
        message: The failed action and the remedy.
        service: `postgres`, `redis`, `milvus`, `files`, or `lease` if another holds it too long.
    """

    exit_code = 6

    def __init__(self, message: str = "", service: str = "") -> None:
        super().__init__(message, service)
        self.service = service


class InputError(NightshiftError):
    """One item or query is bad; it is recorded, and the others go on.

    Args:
        message: The reason and the remedy.
        reason: A short stable code, such as `image_unreadable` or `duplicate_id`.
        subject_id: The bad item, query or line.
    """

    exit_code = 7

    def __init__(self, message: str = "", reason: str = "", subject_id: str = "") -> None:
        super().__init__(message, reason, subject_id)
        self.reason = reason
        self.subject_id = subject_id


class ModelError(NightshiftError):
    """A model cannot be loaded, or lacks a feature.

    Args:
        message: The missing thing and the remedy.
        model: The model specification.
    """

    exit_code = 8

    def __init__(self, message: str = "", model: str = "") -> None:
        super().__init__(message, model)
        self.model = model


class LeaseLostError(NightshiftError):
    """Another process holds this job or named lease now; this attempt wrote nothing.

    Args:
        message: The reason.
        job_id: The lost job; 0 for a named lease.
    """

    def __init__(self, message: str = "", job_id: int = 0) -> None:
        super().__init__(message, job_id)
        self.job_id = job_id
