"""Names that people give to catalogues and indexes."""

from nightshift.schema.errors import ConfigurationError

__all__ = ["check_name"]

#: Postgres keeps names in an index, which holds 2,700 bytes of one.
_MAX_CHARS = 500


def check_name(what: str, name: str) -> None:
    """Refuse a name that cannot be kept or typed again.

    Args:
        what: Such as `catalogue`, for the message.
        name: As it was given.

    Raises:
        ConfigurationError: Where it is blank or too long.
    """
    if not name.strip():
        raise ConfigurationError(f"the name of the {what} is blank; give it one")
    if len(name) > _MAX_CHARS:
        raise ConfigurationError(
            f"the name of the {what} has {len(name):,} characters, at most {_MAX_CHARS} are taken; "
            "shorten it"
        )
