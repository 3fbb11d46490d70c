"""Whose own code may run: nobody's, unless the operator says so by name."""

from nightshift.models.spec import Builtin, Directory, Hub
from nightshift.schema.settings import Settings

__all__ = ["trusts"]


def trusts(source: Builtin | Directory | Hub) -> bool:
    """Whether `NIGHTSHIFT_TRUSTED_MODELS` names this repository of the hub, or directory."""
    return str(source) in Settings().trusted_models
