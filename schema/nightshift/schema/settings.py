"""Where the services are: parsed once, from the environment and `.env`, into one frozen value."""

from pathlib import Path
from typing import Annotated

from platformdirs import user_data_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Every setting of a process; an unset URL means the embedded stack of `data_dir`."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTSHIFT_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    #: Home of the embedded stack; `$XDG_DATA_HOME/nightshift` unless set.
    data_dir: Path = Field(default_factory=lambda: user_data_path("nightshift"))
    #: SQLAlchemy URL of Postgres.
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    #: `http://host:port` of a Milvus server.
    milvus_uri: str | None = None
    milvus_token: SecretStr | None = None
    #: A job whose worker shows no progress for this long is given to another.
    lease_s: Annotated[float, Field(gt=0)] = 60.0
    #: A worker whose job makes no progress for this long ends itself; whoever started it starts it
    #: again, and another takes the job over.
    hang_s: Annotated[float, Field(gt=0)] = 900.0
    #: Seconds a stopping worker may use to finish the job in hand.
    grace_s: Annotated[float, Field(ge=0)] = 30.0
    #: Own attempts of a job before it is bisected.
    max_attempts: Annotated[int, Field(ge=1)] = 3
    #: Jobs that may wait in Redis per live worker.
    window_per_worker: Annotated[int, Field(ge=1)] = 4
    log_level: str = "INFO"
