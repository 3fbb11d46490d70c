"""Packages in install lines of pages and messages are ours, from source, or declared."""

import re
import shlex
import tomllib
from itertools import chain, takewhile
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from nightshift.models.checkpoints.load_errors import not_loaded
from nightshift.schema.distribution import Extra, install_hint
from nightshift.stores.files.files import to_nightshift_error

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
NAME = PROJECT["name"]
EXTRAS = set(PROJECT["optional-dependencies"])
#: Of `make`, beside what we declare.
TOOLS = {"pip-audit", "milvus"}
DECLARED = TOOLS | {
    canonicalize_name(Requirement(line).name)
    for line in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
}
ROOMS = (*PYPROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"], "benchmarks", "docs", "deploy")
PLACES = sorted(
    path
    for path in chain(ROOT.glob("*"), *((ROOT / room).rglob("*") for room in ROOMS))
    if path.suffix in {".md", ".py", ".yml", ".html"} or path.name in {"Makefile", "Dockerfile"}
)
#: Their next word is no package.
TAKE_A_VALUE = {"-r", "--requirement", "--only-binary", "--wheel-dir", "--find-links"}


def installed_by(text):
    """Packages that each `pip install` or `pip wheel` of a text names."""
    text = text.replace("$(PIP_INSTALL)", "pip install").replace("\\\n", " ")
    for line in re.findall(r"\bpip (?:install|wheel)\b([^`\n;|&]*)", text):
        words = iter(takewhile(lambda word: word[0] != "$", shlex.split(line, comments=True)))
        for word in words:
            if word in TAKE_A_VALUE:
                next(words)
            elif not word.startswith("-"):
                yield word


def fault(named):
    """The reason why nobody should install this; empty where they may."""
    if match := re.fullmatch(r"(\.|[\w./-]+\.whl)(?:\[([\w,]+)\])?", named):
        place, extras = match.groups()
        if place != "." and parse_wheel_filename(Path(place).name)[0] != NAME:
            return "a wheel of another name"
        unknown = set((extras or "").split(",")) - EXTRAS - {""}
        return f"no such extra: {unknown}" if unknown else ""
    requirement = Requirement(named)
    if canonicalize_name(requirement.name) in DECLARED - {NAME}:
        return ""
    return "nothing that we publish or declare"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pip install --upgrade nightshift", "nothing that"),
        ("pip install 'nightshift[s3]'  # for S3", "nothing that"),
        (f"pip install {NAME}", "nothing that"),
        ("pip install -r x.txt '.[s4]'", "no such extra"),
        ("pip install dist/nightshift-0.1.0-py3-none-any.whl", "a wheel of another"),
        ("pip install '.[s3,gcs]' pyarrow", ""),
    ],
)
def test_a_wrong_line_is_noticed(line, expected):
    assert "".join(map(fault, installed_by(line))).startswith(expected)


def test_every_line_that_installs_names_what_there_is():
    texts = {path: path.read_text() for path in PLACES if path.name != "distribution.py"}
    named = {
        (str(path.relative_to(ROOT)), word)
        for path, text in texts.items()
        for word in installed_by(text)
    }

    assert len(named) > 12, "the lines were not read"
    assert {(place, word, fault(word)) for place, word in named if fault(word)} == set()


def test_nowhere_do_extras_stand_behind_the_name_of_another_program():
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in PLACES}

    assert {path for path, text in texts.items() if re.search(r"nightshift\[[a-z]", text)} == set()


def test_a_wheel_that_is_named_has_the_version_of_now():
    wheels = re.findall(r"[\w.-]+\.whl", (ROOT / "docs" / "operate.md").read_text())

    assert {parse_wheel_filename(name)[:2] for name in wheels} == {
        parse_wheel_filename(f"nightshift_index-{PROJECT['version']}-py3-none-any.whl")[:2]
    }


@pytest.mark.parametrize("extra", get_args(Extra))
def test_a_hint_names_an_extra_that_there_is(extra):
    assert [fault(word) for word in installed_by(install_hint(extra))] == [""]


@pytest.mark.parametrize(
    ("address", "extra"), [("s3://shop/a.csv", "s3"), ("gs://x/a", "gcs"), ("gcs://x/a", "gcs")]
)
def test_an_address_whose_package_is_missing_says_what_to_install(address, extra):
    error = to_nightshift_error(ImportError("Install a package to access it"), address, "file")

    assert install_hint(extra) in str(error)


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        ("Using `bitsandbytes` 4-bit quantization requires bitsandbytes", "quantised"),
        ("Loading an AWQ quantized model requires gptqmodel. `pip install gptqmodel`", "awq"),
    ],
)
def test_a_quantised_model_whose_package_is_missing_says_what_to_install(message, extra):
    error = not_loaded("hf:a/b", ImportError(message))

    assert install_hint(extra) in str(error)
    assert list(installed_by(str(error))) == [f".[{extra}]"]
