"""Fingerprints of the bundled models, written down: a new one would compute every score again.

They change with what a model sees (its weights, prompts, pixels, parameters) and with nothing else.
A change that is meant is named in the changelog, and new literals are written here.
"""

import pytest

from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.schema.params import EnhancementParams, ScorerParams

SCORER = f"hf:{scorer_dir()}@float32"

#: (method, framing, score) → fingerprint.
FRAMINGS = {
    ("retllm", "retllm", "margin_2way"): "a4ec04f14666626d",
    ("retllm", "retllm_number", "number"): "76d222a8c6b397e1",
    ("retllm", "retllm_listwise", "listwise"): "0f1daa1d06d95282",
    ("freeret", "freeret", "margin_2way"): "243466ced01f2711",
    ("freeret", "freeret_true_false", "margin_2way"): "1b71a5b843388d73",
    ("freeret", "freeret_yes_no", "margin_2way"): "39dea0d935f7406e",
    ("freeret", "freeret_right_wrong", "margin_2way"): "c29b4fd64e4b0d76",
    ("freeret", "freeret_candidate_first", "margin_2way"): "d86de4adb2b2bd48",
    ("freeret", "freeret_candidate_first_true_false", "margin_2way"): "9aa3c1fad7c1984c",
    ("freeret", "freeret_candidate_first_yes_no", "margin_2way"): "8e255e4e557740fc",
    ("freeret", "freeret_candidate_first_right_wrong", "margin_2way"): "8ef36c2f816fe363",
    ("indexmllm", "object", "margin_2way"): "f9dd9d1a3769ed93",
    ("indexmllm", "landmark", "margin_2way"): "e7f02462489adcc5",
    ("indexmllm", "generic", "margin_2way"): "659daa91dcc19d95",
    ("indexmllm", "product", "margin_2way"): "548ba0045402a86c",
}

#: Parameters → fingerprint.
OPTIONS = [
    (ScorerParams(preset="code"), "d64b7b3cf79e3380"),
    (ScorerParams(score="p_true_full"), "877891b91f15e0e4"),
    (ScorerParams(method="freeret", framing="freeret", debias="swap"), "1902fe8e5aa3abcc"),
    (ScorerParams(method="freeret", framing="freeret", subtract_prior=True), "3a324abd9232d37f"),
    (ScorerParams(symmetrise=True), "ff22e6d143b10e52"),
    (ScorerParams(long_side=448), "198984bb240e2626"),
    (ScorerParams(min_pixels=784, max_pixels=100352), "8c68b94beaeb7a46"),
    (ScorerParams(codec="pool(2)", code_queries=True), "b76d6347c52de803"),
    (ScorerParams(enhancement=EnhancementParams(trigger="never")), "198f8a124cfb54c8"),
    (
        ScorerParams(
            enhancement=EnhancementParams(trigger=3, gamma=0.5, memory="query", window=(2, 5))
        ),
        "64a2cab90f225515",
    ),
]


@pytest.mark.parametrize(("method", "framing", "score"), FRAMINGS)
def test_a_scorer_keeps_its_fingerprint(method, framing, score):
    params = ScorerParams(method=method, framing=framing, score=score)

    assert describe_scorer(SCORER, params).fingerprint == FRAMINGS[method, framing, score]


@pytest.mark.parametrize(("params", "fingerprint"), OPTIONS)
def test_a_scorer_with_options_keeps_its_fingerprint(params, fingerprint):
    assert describe_scorer(SCORER, params).fingerprint == fingerprint


def test_a_vision_tower_keeps_its_fingerprint():
    limited = describe_vision(SCORER, min_pixels=784, max_pixels=100352, long_side=448)

    assert describe_vision(SCORER).fingerprint == "c9c42f96d507dbe4"
    assert limited.fingerprint == "8199ac7e0f82bcd9"


@pytest.mark.parametrize(
    ("spec", "fingerprint"),
    [
        (f"open_clip:{coarse_dir()}", "f10b2e13bbde0a6f"),
        (f"freeret:{scorer_dir()}@float32", "5c7d25e01a71d62e"),
        (
            f"freeret:{scorer_dir()}?site=mlp_L_prenorm&norm=rms&prompt=e5v@float32",
            "b3d3148deed8c315",
        ),
    ],
)
def test_an_embedder_keeps_its_fingerprint(spec, fingerprint):
    assert describe_embedder(spec).fingerprint == fingerprint
