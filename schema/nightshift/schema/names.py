"""Names of catalogues and indexes."""

from nightshift.schema.errors import ConfigurationError

__all__ = ["check_name"]

#: Names are in a Postgres index, whose entries hold at most 2,700 bytes.
_MAX_CHARS = 500


def check_name(kind: str, name: str) -> None:
    """Refuse a name that is blank or too long to be indexed.

    Args:
        kind: The kind of thing, such as `catalogue`, for the message.
        name: The name.

    Raises:
        ConfigurationError: If the name is blank or too long.
    """
    if not name.strip():
        raise ConfigurationError(f"the name of the {kind} is blank; give it one")
    if len(name) > _MAX_CHARS:
        raise ConfigurationError(
            f"the name of the {kind} has {len(name):,} characters; shorten it to {_MAX_CHARS}"
        )
