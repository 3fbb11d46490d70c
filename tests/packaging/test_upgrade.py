"""Upgrading as docs/operate.md says leaves the new program in place of the old one."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]
#: What no index is asked for: neither our dependencies nor what builds.
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the source, to be changed."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for room in PYPROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]:
        shutil.copytree(
            ROOT / room,
            folder / room,
            ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
        )
    return folder


@pytest.fixture(scope="module")
def home(source, tmp_path_factory):
    """An environment in which the source is installed, dependencies borrowed."""
    folder = tmp_path_factory.mktemp("upgraded")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site_packages / "dependencies.pth").write_text("\n".join(borrowed) + "\n")
    pip(folder, "install", ".", cwd=source)
    return folder


def pip(home, verb, *args, cwd):
    python = ["--python", home / "bin" / "python", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", *python, verb, *OFFLINE, *args], cwd=cwd, check=True
    )


def said(home, *args):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NIGHTSHIFT"))}
    done = subprocess.run(
        [home / "bin" / "nightshift", *args],
        cwd=home, env=clean, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_from_the_source_the_same_version_is_installed_again(home, source):
    main = source / "cli" / "nightshift" / "cli" / "main.py"
    edit(main, 'prog_name="nightshift"', 'prog_name="nightshift of the next day"')
    before = said(home, "--version")

    pip(home, "install", "--upgrade", ".", cwd=source)

    assert before == f"nightshift, version {VERSION}"
    assert said(home, "--version") == f"nightshift of the next day, version {VERSION}"


def test_a_wheel_replaces_a_lower_version_and_the_same_one_only_when_forced(home, source):
    edit(source / "pyproject.toml", f'version = "{VERSION}"', 'version = "77.0"')
    main = source / "cli" / "nightshift" / "cli" / "main.py"
    pip(home, "wheel", "--wheel-dir", "dist", ".", cwd=source)
    pip(home, "install", "dist/nightshift_index-77.0-py3-none-any.whl", cwd=source)
    replaced = said(home, "--version")
    edit(main, "prog_name=", "message='of the same version', prog_name=")
    pip(home, "wheel", "--wheel-dir", "dist", ".", cwd=source)

    pip(home, "install", "--upgrade", "dist/nightshift_index-77.0-py3-none-any.whl", cwd=source)
    kept = said(home, "--version")
    pip(home, "install", "--force-reinstall", "dist/nightshift_index-77.0-py3-none-any.whl",
        cwd=source)  # fmt: skip

    assert replaced.endswith("version 77.0")
    assert kept == replaced
    assert said(home, "--version") == "of the same version"
