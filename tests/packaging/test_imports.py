"""Importing is cheap, and does nothing that cannot be undone."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "dev-mode-dirs"
]
#: Seconds each; no command may pay for those that it does not use.
HEAVY = ("torch", "transformers", "open_clip", "celery", "pymilvus", "milvus_lite", "faiss")


def run_in_a_fresh_process(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    "statement",
    [
        "import nightshift.cli.main",
        "from nightshift.cli.main import main; main(['--help'], standalone_mode=False)",
        *(f"import nightshift.{room}" for room in ROOMS),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement):
    output = run_in_a_fresh_process(
        f"{statement}\nimport sys; print('loaded:', *[m for m in {HEAVY} if m in sys.modules])"
    )

    assert output.splitlines()[-1] == "loaded:"


def test_importing_the_worker_leaves_cuda_alone():
    """CUDA that was initialised before a fork is broken in the child."""
    begun = run_in_a_fresh_process(
        # A machine without a GPU would not tell: it is never initialised there.
        "import torch; begun = []; torch.cuda._lazy_init = lambda: begun.append('begun')\n"
        "import nightshift.workers.app\n"
        "print(begun)\n"
        "torch.cuda.init(); print(begun)"
    )

    assert begun.splitlines() == ["[]", "['begun']"]


@pytest.mark.night
def test_every_module_can_be_imported_on_its_own():
    """None depends on another having been imported first, nor on a service being there."""
    modules = sorted(
        ".".join(path.relative_to(ROOT / room).with_suffix("").parts).removesuffix(".__init__")
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if room != "migrations"  # Alembic runs env.py and the versions, nobody imports them
    )

    failed = run_in_a_fresh_process(
        "import sys, os, traceback\n"
        f"for name in {modules}:\n"
        "    before = set(sys.modules)\n"
        "    try: __import__(name)\n"
        "    except Exception: print(name, traceback.format_exc())\n"
        "    for ours in [m for m in set(sys.modules) - before if m.startswith('nightshift.')]:\n"
        "        del sys.modules[ours]\n"
    )

    assert failed == ""
