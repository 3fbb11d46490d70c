"""Where the services are: parsed once, from the environment and `.env`, into one frozen value."""

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

    with _unrepeated(ArgumentError):
        kind = make_url(secret.get_secret_value()).drivername
    if kind not in {"postgresql", "postgresql+psycopg2"}:
        raise ValueError("it must begin with postgresql+psycopg2://")
    return secret


def _redis_url(secret: SecretStr) -> SecretStr:
    with _unrepeated():
        parts = urlsplit(secret.get_secret_value())
        _ = parts.port
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("it must begin with redis://, rediss:// (TLS) or unix://")
    return secret


def _milvus_uri(uri: str) -> str:
    with _unrepeated():
        parts = urlsplit(uri)
        _ = parts.port
    if parts.scheme not in {"http", "https"}:
        raise ValueError("it must begin with http:// or https:// (TLS)")
    if parts.username is not None:
        raise ValueError("user and password belong into NIGHTSHIFT_MILVUS_TOKEN")
    return uri


@contextmanager
def _unrepeated(*errors: type[Exception]) -> Iterator[None]:
    """Parsers quote what they choke on, which may be a piece of a password."""
    refused: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except refused:
        raise ValueError(
            "it is no URL; write special signs of a password as %40 for @, %2F for / and so on"
        ) from None


#: Both are written with commas.
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, PlainValidator(_networks)]


class Settings(BaseSettings):
    """Every setting of a process; an unset URL means the embedded stack of `data_dir`."""

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
    #: A job whose worker shows no progress for this long is given to another.
    lease_s: Annotated[float, Field(gt=0)] = 60.0
    #: A worker whose job makes no progress for this long ends itself; whoever started it starts it
    #: again, and another takes the job over.
    hang_s: Annotated[float, Field(gt=0)] = 900.0
    #: Seconds a stopping worker may use to finish the job in hand.
    grace_s: Annotated[float, Field(ge=0)] = 30.0
    #: Whether workers run multimodal LLMs through `torch.compile`, which needs a C++ compiler.
    compile: bool = False
    #: Own attempts of a job before it is bisected.
    max_attempts: Annotated[int, Field(ge=1)] = 3
    #: Jobs that may wait in Redis per live worker.
    window_per_worker: Annotated[int, Field(ge=1)] = 4
    #: Folders and URLs below which images may lie, beside the folder of the source naming them.
    image_roots: _Names = ()
    #: Web hosts that images may come from, `*.shop.example` with all below it; empty means any.
    image_hosts: _Names = ()
    #: Networks that images may come from although they are not public, such as `10.1.0.0/16`.
    image_networks: _Networks = ()
    #: Models whose own code may run: `ORG/NAME` on the hub, or the absolute path of a directory.
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
