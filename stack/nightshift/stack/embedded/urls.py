"""The addresses of the services: explicit settings first, then the embedded stack."""

from pydantic import SecretStr

from nightshift.schema.errors import ConfigurationError, ServiceUnavailableError
from nightshift.schema.settings import Settings
from nightshift.stack.embedded.stack import Stack
from nightshift.stack.embedded.state import ServiceUrls, StackState

__all__ = ["resolve_database_url", "resolve_urls"]


def resolve_urls(settings: Settings, *, running: bool = True) -> ServiceUrls:
    """Take each address from its setting, or else from the running stack of `settings.data_dir`.

    Args:
        settings: The settings of this process.
        running: True if each service of the stack must run.

    Raises:
        ConfigurationError: When a service has neither; the message names the variable to set.
        ServiceUnavailableError: When there is a stack and the service does not run.
    """
    stack = Stack(settings.data_dir)
    database_url = _plain(settings.database_url)
    if database_url is None:
        database_url = _embedded(stack, "postgres", running).database_url
    redis_url = _plain(settings.redis_url) or _embedded(stack, "redis", running).redis_url
    if settings.milvus_uri:
        uri, token = settings.milvus_uri, _plain(settings.milvus_token) or ""
    else:
        embedded = _embedded(stack, "milvus", running)
        uri, token = embedded.milvus_uri, embedded.milvus_token
    return ServiceUrls(
        database_url=database_url, redis_url=redis_url, milvus_uri=uri, milvus_token=token
    )


def resolve_database_url(settings: Settings) -> str:
    """The address of Postgres; reading results needs no other service.

    Raises:
        ConfigurationError: As `resolve_urls`.
    """
    explicit = _plain(settings.database_url)
    return explicit or _embedded(Stack(settings.data_dir), "postgres").database_url


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


_VARIABLES = {
    "postgres": "NIGHTSHIFT_DATABASE_URL",
    "redis": "NIGHTSHIFT_REDIS_URL",
    "milvus": "NIGHTSHIFT_MILVUS_URI",
}


def _embedded(stack: Stack, service: str, running: bool = True) -> ServiceUrls:
    known = StackState.load(stack.data_dir) is not None
    if not stack.is_running(service) and (running or not known):
        message = (
            f"{service} of the embedded stack in {stack.data_dir} is not running: "
            f"run `nightshift up`, or set {_VARIABLES[service]}"
        )
        if not known:
            raise ConfigurationError(message)
        raise ServiceUnavailableError(message, service)
    return stack.urls()
