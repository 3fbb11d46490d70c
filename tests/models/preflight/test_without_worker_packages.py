"""Without torch and the model libraries a model is described; what needs them names the extra."""

import json
import subprocess
import sys
from pathlib import Path

from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.schema.distribution import install_hint
from nightshift.schema.params import ScorerParams

_PREAMBLE = """
import json, sys
for name in ("torch", "torchvision", "transformers", "open_clip", "faiss"):
    sys.modules[name] = None  # as if it were not installed
from nightshift.models.checkpoints.describe import *
from nightshift.models.load import load_embedder
from nightshift.models.preflight.doctor import examine_devices, examine_models
from nightshift.models.preflight.loadable import require_loadable
from nightshift.models.preflight.token_grids import token_grids
from nightshift.schema.errors import ModelError
from nightshift.schema.models import ModelInUse
from nightshift.schema.params import ScorerParams
"""


def _in_a_base_installation(code: str, *arguments: str) -> list[str]:
    output = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + code, *arguments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines: list[str] = json.loads(output)
    return lines


def test_models_in_directories_are_described_as_on_a_worker_and_pass_planning(
    clip_folder: Path, open_clip_folder: Path, qwen_folder: Path
) -> None:
    clip, open_clip = f"hf:{clip_folder}", f"open_clip:{open_clip_folder}"
    qwen, freeret = f"hf:{qwen_folder}@float32", f"freeret:{qwen_folder}@float32"

    described = _in_a_base_installation(
        "clip, open_clip, qwen, freeret = sys.argv[1:]\n"
        "facts = [describe_embedder(spec) for spec in (clip, open_clip, freeret)]\n"
        "facts += [describe_scorer(qwen, ScorerParams()), describe_vision(qwen)]\n"
        "for model in facts: require_loadable(model)\n"
        "print(json.dumps([model.fingerprint for model in facts]))",
        *(clip, open_clip, qwen, freeret),
    )

    facts = [describe_embedder(spec) for spec in (clip, open_clip, freeret)]
    facts += [describe_scorer(qwen, ScorerParams()), describe_vision(qwen)]
    assert described == [model.fingerprint for model in facts]


def test_what_needs_the_libraries_names_the_extra_that_installs_them(qwen_folder: Path) -> None:
    messages = _in_a_base_installation(
        "from PIL import Image\n"
        "spec, vision = 'open_clip:ViT-B-32/openai', describe_vision(sys.argv[1])\n"
        "messages = []\n"
        "for call in (\n"
        "    lambda: describe_embedder(spec),\n"
        "    lambda: token_grids(vision, [Image.new('RGB', (56, 56))]),\n"
        "    lambda: load_embedder(sys.argv[1].replace('hf:', 'freeret:')),\n"
        "):\n"
        "    try: call()\n"
        "    except ModelError as error: messages.append(str(error))\n"
        "print(json.dumps(messages))",
        f"hf:{qwen_folder}",
    )

    assert len(messages) == 3
    assert all(install_hint("worker") in message for message in messages)


def test_doctor_says_that_no_worker_runs_here(qwen_folder: Path) -> None:
    devices, model = _in_a_base_installation(
        "facts = describe_vision(sys.argv[1])\n"
        "used = ModelInUse(kind='vision', spec=facts.spec, fingerprint=facts.fingerprint,\n"
        "                  used_by=('run 7',), waited_for=True)\n"
        "findings = [*examine_devices(), *examine_models([used])]\n"
        "print(json.dumps([f'{found.level}: {found.message}' for found in findings]))",
        f"hf:{qwen_folder}@float32",
    )

    assert devices.startswith("ok: ")
    assert install_hint("worker") in devices
    assert model.startswith("ok: ")
    assert "torch is not installed" in model
