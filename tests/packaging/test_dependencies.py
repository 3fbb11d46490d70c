"""Everything that the rooms import is declared, and within bounds."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nightshift.schema.distribution import EXTRA_OF_PACKAGE

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PROJECT["project"]["optional-dependencies"].items()
}
#: Extras whose packages the rooms import.
RUNTIME = [*BASE, *EXTRAS["worker"], *EXTRAS["embedded"], *EXTRAS["pandas"]]
ROOMS = PROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]


def imported_packages():
    """Top-level packages of others that the rooms import, each with one of its importers."""
    imported = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                else:
                    continue
                for name in names:
                    imported.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    # `_typeshed` exists for type checkers only.
    ours = {"nightshift", "_typeshed", *sys.stdlib_module_names}
    return {name: path for name, path in imported.items() if name not in ours}


def test_every_package_that_a_room_imports_is_declared():
    """Not merely present because something else brings it along."""
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    providers = packages_distributions()

    undeclared = {
        package: path
        for package, path in imported_packages().items()
        if declared.isdisjoint(canonicalize_name(name) for name in providers.get(package, []))
    }

    assert undeclared == {}


@pytest.mark.parametrize(
    "requirement",
    [
        requirement
        for requirement in chain(BASE, *EXTRAS.values())
        if requirement.name != PROJECT["project"]["name"]
    ],
    ids=lambda requirement: requirement.name,
)
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement):
    assert {bound.operator for bound in requirement.specifier} == {">=", "<"}


def test_every_package_of_an_extra_that_a_message_may_name_is_declared_there():
    """So a message never tells anyone to install an extra that would not help."""
    distributions = packages_distributions()
    declared = {
        (canonicalize_name(requirement.name), extra)
        for extra, requirements in EXTRAS.items()
        for requirement in requirements
    }

    unknown = {
        (package, extra)
        for package, extra in EXTRA_OF_PACKAGE.items()
        if declared.isdisjoint(
            (canonicalize_name(name), extra) for name in distributions.get(package, [package])
        )
    }

    assert unknown == set()
