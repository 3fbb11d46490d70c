"""The unit file is one that systemd takes, and starts a command that this program has."""

import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.command_lines import require_understood

_UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "nightshift.service"


@pytest.fixture
def unit() -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(_UNIT)
    return parser


def test_it_starts_a_command_line_of_this_program(unit: ConfigParser) -> None:
    program, *words = shlex.split(unit["Service"]["ExecStart"])

    assert Path(program).name == "nightshift"
    assert "--supervise" in words
    require_understood(["nightshift", *words])


def test_a_stop_reaches_the_supervisor_alone_and_leaves_it_time(unit: ConfigParser) -> None:
    service = unit["Service"]

    assert service["KillMode"] == "mixed"
    # A worker's grace, 30 s, then Postgres, Redis and Milvus one after another.
    assert int(service["TimeoutStopSec"]) > 30 + 5 + 90 + 30 + 30
    assert service["Restart"] == "on-failure"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_it(tmp_path: Path) -> None:
    copy = tmp_path / _UNIT.name
    text = _UNIT.read_text().replace("/opt/nightshift/bin/nightshift", shutil.which("true") or "")
    copy.write_text(text.replace("User=nightshift", "User=root"))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert _UNIT.name not in done.stderr
