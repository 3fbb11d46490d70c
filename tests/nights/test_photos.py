"""Real photographs, where they lie beside the project: a full-size random ViT-B-32 embeds them."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

_PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos10"


@pytest.fixture(scope="module")
def vit_b_32(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of random weights, as `ARCH/FILE`."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", precision="fp32")
    file = tmp_path_factory.mktemp("vit") / "random.safetensors"
    save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, file)
    return f"open_clip:ViT-B-32/{file}"


@pytest.mark.skipif(not _PHOTOS.exists(), reason="the ten photographs are not at hand")
def test_ten_photographs_go_through_the_same_commands(night, vit_b_32, scorer, tmp_path):
    night.worker()
    source = str(_PHOTOS / "captions.jsonl")
    imported = json.loads(night.cli("catalog", "import", "photos", source, "--json").stdout)
    queries = [
        {"id": row["id"], "text": row["text"]}
        for row in map(json.loads, Path(source).read_text().splitlines())
    ]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))

    night.cli("index", "build", "photos", "--embedder", vit_b_32, "--wait", "--json")
    done = night.cli("rerank", "photos", "--queries", str(tmp_path / "queries.jsonl"), "--scorer",
                     scorer, "--top-k", "5", "--wait", "--json")  # fmt: skip

    run_id = json.loads(done.stdout)["run_id"]
    assert imported == {
        "read": 10, "accepted": 10, "failed": 0, "unchanged": 0, "revision": 1,
    }  # fmt: skip
    ranked = night.rows(
        "SELECT count(*), count(margin), count(DISTINCT query) FROM v_ranking WHERE run_id = :r",
        r=run_id,
    )
    assert ranked == [(50, 50, 10)]
