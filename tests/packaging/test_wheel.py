"""The wheel, built from the source distribution as a release is, gives a user every part."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = PROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]
VERSION = PROJECT["project"]["version"]
DIST_INFO = f"nightshift_index-{VERSION}.dist-info"


@pytest.fixture(scope="module")
def names(wheel):
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A bare environment that holds the wheel, and sees our dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    # A path that comes from a .pth file is searched, but its own .pth files are not read: the
    # editable installation among the dependencies stays out of sight.
    site_packages = next(folder.glob("lib/python*/site-packages"))
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Runs a program of the bare environment, far from the checkout."""

    def run(program, *args, **variables):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NIGHTSHIFT"))}
        return subprocess.run(
            [installed / "bin" / program, *args],
            cwd=tmp_path,
            env={**clean, "HOME": str(tmp_path), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_wheel_brings_one_top_level_package(names):
    assert {name.split("/")[0] for name in names} == {
        "nightshift",
        DIST_INFO,
    }


def test_every_file_of_every_room_is_inside(names):
    """By way of the source distribution, so that neither step loses any."""
    expected = {
        str(path.relative_to(ROOT / room))
        for room in ROOMS
        for path in (ROOT / room / "nightshift").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {name for name in names if name.startswith("nightshift/")} == expected


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_typed(names, room):
    assert f"nightshift/{room}/py.typed" in names


def test_the_namespace_has_no_code_of_its_own(names):
    assert "nightshift/__init__.py" not in names


def test_the_migrations_and_the_weights_of_the_demo_come_along(names):
    assert any(name.startswith("nightshift/migrations/versions/0001") for name in names)
    assert "nightshift/migrations/script.py.mako" in names
    assert any(
        name.startswith("nightshift/demo/") and name.endswith(".safetensors") for name in names
    )


def test_the_licence_comes_along(names):
    assert f"{DIST_INFO}/licenses/LICENSE" in names


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < 25e6


def test_the_installed_program_says_its_version(run):
    result = run("nightshift", "--version")

    assert result.stdout.strip() == f"nightshift, version {VERSION}", result.stderr


def test_the_installed_rooms_are_not_those_of_the_checkout(run, installed):
    code = (
        "import nightshift, nightshift.schema.tables as t; print(*nightshift.__path__, t.__file__)"
    )

    result = run("python", "-c", code)

    paths = result.stdout.split()
    assert paths, result.stderr
    assert all(path.startswith(str(installed)) for path in paths)


def test_the_installed_program_upgrades_an_empty_database(run, empty_database_url):
    check = "from nightshift.migrations import require_current; require_current({!r})"

    before = run("python", "-c", check.format(empty_database_url))
    upgraded = run("nightshift", "db", "upgrade", NIGHTSHIFT_DATABASE_URL=empty_database_url)
    after = run("python", "-c", check.format(empty_database_url))

    assert "DatabaseBehindError" in before.stderr
    assert upgraded.returncode == 0, upgraded.stderr
    assert after.returncode == 0, after.stderr
