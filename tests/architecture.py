"""Counts what the architecture is judged by: `python -m tests.architecture` prints the table.

A room's children are its direct modules and packages. An arrow leads from a child to another that
it imports, however many imports there are. The levels are the number of children on the longest
chain of arrows.
"""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import grimp

ROOT = Path(__file__).parents[1]
#: Rooms with a second level, whose arrows are counted.
GROUPED_ROOMS = ("stores", "models", "stack")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomCounts:
    """Counts of how the children of a room depend on each other."""

    room: str
    modules: int
    #: (importer, imported), both direct children of the room.
    arrows: frozenset[tuple[str, str]]
    #: Children on the longest chain of arrows; None where the arrows form a cycle.
    levels: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function or method, with its decorators left out of its length."""

    path: str
    name: str
    lines: int


def count_room(room: str) -> RoomCounts:
    """The counts of one room."""
    prefix = f"nightshift.{room}"
    modules = {name for name in import_graph().modules if name.startswith(f"{prefix}.")}
    arrows = set()
    for importer in modules:
        for imported in import_graph().find_modules_directly_imported_by(importer) & modules:
            pair = importer.split(".")[2], imported.split(".")[2]
            if pair[0] != pair[1]:
                arrows.add(pair)
    return RoomCounts(
        room=room, modules=len(modules), arrows=frozenset(arrows), levels=_levels(arrows)
    )


@cache
def import_graph() -> grimp.ImportGraph:
    """Every import between the modules of the project."""
    return grimp.build_graph("nightshift", cache_dir=None)


@cache
def pyproject() -> dict[str, Any]:
    """The project's configuration."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def rooms() -> list[str]:
    """The rooms on disk: folders that hold a part of the namespace package."""
    return sorted(path.parent.name for path in ROOT.glob("*/nightshift/*/py.typed"))


def layers() -> list[list[str]]:
    """The rooms of the layers contract, the highest first."""
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["id"] == "layers")
    return [
        [room.strip() for room in layer.replace(":", "|").split("|")]
        for layer in contract["layers"]
    ]


def modules() -> Iterator[Path]:
    """Modules of the rooms, migrations apart: each of those is a frozen record of one step."""
    for room in rooms():
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.parent.name != "versions":
                yield path


def functions() -> Iterator[Function]:
    """Functions and methods of the rooms."""
    for path in modules():
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield Function(path=str(path.relative_to(ROOT)), name=node.name, lines=lines)


def class_paths() -> dict[str, list[str]]:
    """Names of classes at module level, each with the modules that define it."""
    paths: dict[str, list[str]] = {}
    for path in modules():
        for node in _parsed(path).body:
            if isinstance(node, ast.ClassDef):
                paths.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    return paths


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _levels(arrows: set[tuple[str, str]]) -> int | None:
    imported: dict[str, set[str]] = {}
    for importer, target in arrows:
        imported.setdefault(importer, set()).add(target)
    sorter = TopologicalSorter(imported)
    try:
        order = list(sorter.static_order())
    except ValueError:
        return None
    height: dict[str, int] = {}
    for child in order:
        height[child] = 1 + max((height[target] for target in imported.get(child, ())), default=0)
    return max(height.values(), default=1)


def main() -> None:
    """Print the counts of the grouped rooms and the layers of all rooms."""
    print(f"{'room':<10} {'modules':>7} {'arrows':>7} {'levels':>7}")
    for room in GROUPED_ROOMS:
        counts = count_room(room)
        levels = "cycle" if counts.levels is None else str(counts.levels)
        print(f"{room:<10} {counts.modules:>7} {len(counts.arrows):>7} {levels:>7}")
    print("\nrooms, top down:")
    for layer in layers():
        print("  " + " | ".join(layer))


if __name__ == "__main__":
    main()
