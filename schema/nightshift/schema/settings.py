"""The settings of a process, parsed once from the environment and `.env`."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nightshift.schema.errors import ConfigurationError

__all__ = ["Settings", "read_settings"]


def _split(value: object) -> object:
    return (
        tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value
    )


def _networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    parts = _split(value)
    assert isinstance(parts, tuple)
    return tuple(map(ip_network, parts))


def _database_url(secret: SecretStr) -> SecretStr:
    from sqlalchemy import make_url  # noqa: PLC0415 - heavier than all the rest of this module
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    with _without_quotes(ArgumentError):
        kind = make_url(secret.get_secret_value()).drivername
    if kind not in {"postgresql", "postgresql+psycopg2"}:
        raise ValueError("must begin with postgresql+psycopg2://")
    return secret


def _redis_url(secret: SecretStr) -> SecretStr:
    with _without_quotes():
        parts = urlsplit(secret.get_secret_value())
        _ = parts.port
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// (TLS) or unix://")
    return secret


def _milvus_uri(uri: str) -> str:
    with _without_quotes():
        parts = urlsplit(uri)
        _ = parts.port
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must begin with http:// or https:// (TLS)")
    if parts.username is not None:
        raise ValueError("put user and password into NIGHTSHIFT_MILVUS_TOKEN")
    return uri


@contextmanager
def _without_quotes(*errors: type[Exception]) -> Iterator[None]:
    """Replace a parser's message, which may quote a part of a password."""
    refused: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except refused:
        raise ValueError(
            "not a URL; percent-encode special characters in the password, such as %40 for @"
        ) from None


#: Comma-separated lists.
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, PlainValidator(_networks)]


class Settings(BaseSettings):
    """All settings of a process; an unset URL means the embedded stack in `data_dir`."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTSHIFT_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    #: Home of the embedded stack; `$XDG_DATA_HOME/nightshift` unless set.
    data_dir: Path = Field(default_factory=lambda: user_data_path("nightshift"))
    #: SQLAlchemy URL of Postgres.
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = None
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    #: `http://host:port` of a Milvus server.
    milvus_uri: Annotated[str, AfterValidator(_milvus_uri)] | None = None
    milvus_token: SecretStr | None = None
    #: A job whose worker shows no progress for this long is given to another worker.
    lease_s: Annotated[float, Field(gt=0)] = 60.0
    #: A worker whose job makes no progress for this long ends itself. Its supervisor starts it
    #: again, and another worker takes the job.
    hang_s: Annotated[float, Field(gt=0)] = 900.0
    #: Seconds that a stopping worker may take to finish its job.
    grace_s: Annotated[float, Field(ge=0)] = 30.0
    #: Whether workers run multimodal LLMs through `torch.compile`, which needs a C++ compiler.
    compile: bool = False
    #: Failed attempts of a job before it is split in two.
    max_attempts: Annotated[int, Field(ge=1)] = 3
    #: Jobs that may wait in Redis per live worker.
    window_per_worker: Annotated[int, Field(ge=1)] = 4
    #: Folders and URLs that may hold images, besides the folder of the source that names them.
    image_roots: _Names = ()
    #: Web hosts that images may come from; `*.shop.example` includes subdomains; empty means any.
    image_hosts: _Names = ()
    #: Private networks that images may come from, such as `10.1.0.0/16`.
    image_networks: _Networks = ()
    #: Models whose own Python code may run: `ORG/NAME` on the hub, or an absolute path.
    trusted_models: _Names = ()
    log_level: str = "INFO"


def read_settings(data_dir: Path | None = None) -> Settings:
    """The settings of this process, from the environment and `.env`.

    Args:
        data_dir: Home of the embedded stack; wins over both.

    Raises:
        ConfigurationError: Names every variable that is malformed.
    """
    try:
        return Settings() if data_dir is None else Settings(data_dir=data_dir)
    except ValidationError as error:
        faults = "; ".join(
            f"NIGHTSHIFT_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False)
        )
        raise ConfigurationError(f"settings cannot be read: {faults}") from error
