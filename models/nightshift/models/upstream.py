"""What `from_pretrained` of transformers is told, whichever class it is called on."""

from typing import Any

from nightshift.models.files import revision
from nightshift.models.spec import Builtin, Directory, Hub
from nightshift.schema.settings import Settings

__all__ = ["pinned"]


def pinned(source: Builtin | Directory | Hub) -> dict[str, Any]:
    """Which files, of which revision, and whether code beside them may run.

    It may where `NIGHTSHIFT_TRUSTED_MODELS` names this repository of the hub, or directory.
    """
    return {
        "pretrained_model_name_or_path": str(source),
        "revision": revision(source) if isinstance(source, Hub) else "main",
        # Left open, transformers asks on a terminal.
        "trust_remote_code": str(source) in Settings().trusted_models,
    }
