"""The house rules that a machine can check."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "dev-mode-dirs"
]
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_rooms_import_only_downwards():
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_source_root_of_the_one_namespace(room):
    """A stray file beside `nightshift/` would become a top-level package of its own."""
    python_files = {path.relative_to(ROOT / room).parts[:2] for path in (ROOT / room).rglob("*.py")}

    assert python_files == {("nightshift", room)}
    assert (ROOT / room / "nightshift" / room / "py.typed").exists()


def test_no_module_is_longer_than_400_lines():
    """Migrations apart: each is a frozen record of one step, however long."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in MODULES
        if path.parent.name != "versions"
    }

    assert {path: length for path, length in lengths.items() if length > 400} == {}
