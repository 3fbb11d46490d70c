"""Naming a model from its files alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nightshift.models.checkpoints import describe
from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.models.load import load_embedder, load_scorer
from nightshift.schema.errors import ConfigurationError, ModelError
from nightshift.schema.params import EnhancementParams, ScorerParams


def test_naming_a_local_model_loads_no_library(clip_folder: Path, open_clip_folder: Path) -> None:
    program = (
        "import sys\n"
        "from nightshift.models.checkpoints.describe import describe_embedder\n"
        f"print(describe_embedder('hf:{clip_folder}').dim)\n"
        f"print(describe_embedder('open_clip:{open_clip_folder}').dim)\n"
        "print({'torch', 'transformers', 'open_clip'} & set(sys.modules))\n"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert printed.split() == ["24", "24", "set()"]


def test_a_worker_gets_the_fingerprint_that_the_planner_got(
    clip_folder: Path, open_clip_folder: Path, qwen_folder: Path
) -> None:
    for spec in (f"hf:{clip_folder}", f"open_clip:{open_clip_folder}"):
        facts = describe_embedder(spec)
        embedder = load_embedder(facts.spec, device="cpu")
        assert (embedder.fingerprint, embedder.dim) == (facts.fingerprint, facts.dim)
    facts = describe_scorer(f"hf:{qwen_folder}", ScorerParams())
    scorer = load_scorer(facts.spec, ScorerParams(), device="cpu")
    assert scorer.fingerprint == facts.fingerprint


def test_the_same_files_elsewhere_are_the_same_model(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")

    assert describe_embedder(f"hf:{copy}").fingerprint == (
        describe_embedder(f"hf:{clip_folder}").fingerprint
    )


def test_whatever_changes_an_embedding_changes_the_fingerprint(
    open_clip_folder: Path, tmp_path: Path
) -> None:
    fingerprints = {describe_embedder(f"open_clip:{open_clip_folder}").fingerprint}
    fingerprints.add(describe_embedder(f"open_clip:{open_clip_folder}@bfloat16").fingerprint)
    copy = shutil.copytree(open_clip_folder, tmp_path / "copy")
    config = copy / "open_clip_config.json"
    facts = json.loads(config.read_text())
    facts["preprocess_cfg"]["interpolation"] = "bilinear"
    config.write_text(json.dumps(facts))
    fingerprints.add(describe_embedder(f"open_clip:{copy}").fingerprint)
    weights = copy / "open_clip_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    fingerprints.add(describe_embedder(f"open_clip:{copy}").fingerprint)

    assert len(fingerprints) == 4


def test_whatever_changes_a_score_changes_the_fingerprint(qwen_folder: Path) -> None:
    variants = [
        ScorerParams(),
        ScorerParams(max_pixels=50_000),
        ScorerParams(min_pixels=1_000),
        ScorerParams(enhancement=EnhancementParams(alpha=0.3)),
        ScorerParams(enhancement=EnhancementParams(trigger=6)),
        ScorerParams(method="freeret", framing="freeret"),
        ScorerParams(method="freeret", framing="freeret", debias="swap"),
        ScorerParams(method="freeret", framing="freeret", subtract_prior=True),
        ScorerParams(method="freeret", framing="freeret_candidate_first"),
        ScorerParams(method="freeret", framing="freeret_yes_no"),
    ]
    fingerprints = {
        describe_scorer(f"hf:{qwen_folder}@float32", variant).fingerprint for variant in variants
    }
    fingerprints.add(describe_scorer(f"hf:{qwen_folder}@bfloat16", ScorerParams()).fingerprint)

    assert len(fingerprints) == len(variants) + 1


def test_pixel_limits_name_a_vision_tower_of_their_own_and_may_not_cross(qwen_folder: Path) -> None:
    spec = f"hf:{qwen_folder}@float32"
    limits: list[tuple[int | None, int | None]] = [(None, None), (3136, None), (3136, 3136)]

    fingerprints = {
        describe_vision(spec, min_pixels=a, max_pixels=b).fingerprint for a, b in limits
    }

    assert len(fingerprints) == len(limits)
    with pytest.raises(ConfigurationError, match="3,137"):
        describe_vision(spec, min_pixels=3137, max_pixels=3136)


def test_the_planner_decides_the_precision_for_every_worker(qwen_folder: Path) -> None:
    facts = describe_scorer(f"hf:{qwen_folder}", ScorerParams())

    assert facts.spec.endswith(f"@{facts.card['precision']}")
    assert describe_scorer(facts.spec, ScorerParams()) == facts


def test_an_embedder_is_no_scorer_nor_the_other_way_round(
    clip_folder: Path, qwen_folder: Path
) -> None:
    with pytest.raises(ModelError, match=r"known scorers: .*qwen2_5_vl"):
        describe_scorer(f"hf:{clip_folder}", ScorerParams())
    with pytest.raises(ModelError, match="qwen2_5_vl"):
        load_embedder(f"hf:{qwen_folder}", device="cpu")


def test_missing_or_unsafe_files_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        describe_embedder(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_bytes((clip_folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ModelError, match="safetensors"):
        describe_embedder(f"hf:{tmp_path}")


def test_an_unknown_architecture_or_tag_is_refused() -> None:
    with pytest.raises(ModelError, match="no architecture"):
        describe_embedder("open_clip:ViT-Z-1/openai")
    with pytest.raises(ModelError, match="laion2b"):
        describe_embedder("open_clip:ViT-B-32/no-such-tag")


def test_a_hub_model_is_pinned_to_the_revision_in_the_cache(
    clip_folder: Path, open_clip_folder: Path, tmp_path: Path
) -> None:
    """Without a network the newest cached revision is named, and that very one is loaded."""
    for name, folder, commit in (
        ("clip", clip_folder, "c" * 40),
        ("open_clip", open_clip_folder, "0" * 40),
    ):
        repository = tmp_path / "hub" / f"models--org--{name}"
        shutil.copytree(folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
    program = (
        "from nightshift.models.checkpoints.describe import describe_embedder\n"
        "from nightshift.models.load import load_embedder\n"
        "for spec in ('hf:org/clip', 'open_clip:hf-hub:org/open_clip'):\n"
        "    facts = describe_embedder(spec)\n"
        "    same = load_embedder(facts.spec, device='cpu').fingerprint == facts.fingerprint\n"
        "    print(facts.spec == spec, same, facts.card.get('revision'))\n"
    )
    environment = {
        "PYTHONPATH": ":".join(path for path in sys.path if path),
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["True", "True", "c" * 40, "True", "True", "None"], done.stderr


def test_another_decoding_of_images_changes_every_model_that_sees_images(
    clip_folder: Path, qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> set[str]:
        scorer = f"hf:{qwen_folder}@float32"
        return {
            describe_embedder(f"hf:{clip_folder}").fingerprint,
            describe_embedder(f"freeret:{qwen_folder}@float32").fingerprint,
            describe_scorer(scorer, ScorerParams()).fingerprint,
            describe_vision(scorer).fingerprint,
        }

    before = names()
    monkeypatch.setattr(describe, "DECODING_VERSION", 99)

    assert len(before) == 4
    assert not before & names()
