"""Prints the lowest versions that pyproject.toml allows, as requirements for pip."""

import re
import tomllib
from pathlib import Path

#: What models are made of: their releases change names, kernels and messages.
PACKAGES = ("torch", "torchvision", "transformers")


def lowest() -> list[str]:
    """A requirement for each of `PACKAGES`: the version at which its range begins."""
    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    ranges = "\n".join(pyproject["project"]["dependencies"])
    return [
        f"{name}=={version}"
        for name in PACKAGES
        for version in re.findall(rf"^{name}>=([\d.]+)", ranges, re.MULTILINE)
    ]


if __name__ == "__main__":
    print(" ".join(lowest()))  # noqa: T201 - for make
