"""The house rules on imports and folders that a machine can check."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import GROUPED_ROOMS, ROOT, count_room, layers, pyproject, rooms

HATCH = pyproject()["tool"]["hatch"]["build"]
PACKAGES = HATCH["targets"]["wheel"]["packages"]
MYPY = pyproject()["tool"]["mypy"]


def test_rooms_import_only_downwards():
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_no_room_below_the_command_line_names_it():
    """Also not in a string: a program that a room starts is given to it."""
    below = [path for room in rooms() if room != "cli" for path in (ROOT / room).rglob("*.py")]

    assert [path for path in below if "nightshift.cli" in path.read_text()] == []


@pytest.mark.parametrize("room", rooms())
def test_a_room_is_a_source_root_of_the_one_namespace(room):
    """A stray file beside `nightshift/` would become a top-level package of its own."""
    python_files = {path.relative_to(ROOT / room).parts[:2] for path in (ROOT / room).rglob("*.py")}

    assert python_files == {("nightshift", room)}
    assert (ROOT / room / "nightshift" / room / "py.typed").exists()


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(HATCH["dev-mode-dirs"], id="editable installation"),
        pytest.param(
            [package.removesuffix("/nightshift") for package in PACKAGES],
            id="wheel",
        ),
        pytest.param(MYPY["files"], id="types"),
        pytest.param(MYPY["mypy_path"].split(":"), id="path of types"),
        pytest.param([room for layer in layers() for room in layer], id="layers"),
    ],
)  # fmt: skip
def test_every_list_of_rooms_names_the_rooms_on_disk(listed):
    assert sorted(listed) == rooms()


@pytest.mark.parametrize(
    ("room", "max_arrows", "max_levels"), [("stores", 20, 5), ("models", 45, 5)]
)
def test_the_groups_of_a_room_stay_apart(room, max_arrows, max_levels):
    counts = count_room(room)

    assert len(counts.arrows) <= max_arrows, sorted(counts.arrows)
    assert counts.levels is not None
    assert counts.levels <= max_levels, sorted(counts.arrows)


@pytest.mark.parametrize("room", GROUPED_ROOMS)
def test_the_groups_of_a_room_form_no_cycle(room):
    assert count_room(room).levels is not None, sorted(count_room(room).arrows)
