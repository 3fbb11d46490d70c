"""The figures of the README are those of the files in benchmarks/results, rounded."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text("utf-8").split())


def result(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text("utf-8"))


def scoring(model, queries_per_image):
    """Text to image, images read from pixels, without the enhancement."""
    (row,) = [
        row
        for row in result("scoring-cpu.json")[model]["rows"]
        if row["case"] == "text_to_image"
        and row["source"] == "pixels"
        and not row["enhancement"]
        and row["queries_per_image"] == queries_per_image
    ]
    return row


@pytest.mark.parametrize("model", ["tiny", "small"])
@pytest.mark.parametrize("queries_per_image", [1, 16, 64])
def test_how_fast_the_packed_engine_is_said_to_be_was_measured(model, queries_per_image):
    row = scoring(model, queries_per_image)
    (stated,) = re.findall(
        rf"\| {queries_per_image} \| `{model}` \| ([\d.]+)[a-z ]*\| ([\d.]+)[a-z ]*\|", README
    )

    assert stated == (f"{row['ratio']:.2g}", f"{row['ratio_batched']:.2g}")


@pytest.mark.parametrize("model", ["tiny", "small"])
def test_rates_and_hours_of_a_core_were_measured(model):
    pairs_per_s = scoring(model, 16)["pairs_per_s"]
    (stated,) = re.findall(rf"\| one core, x86-64 \| `{model}` \| (\d+) \| (\d+) \|", README)

    assert stated == (f"{pairs_per_s:.0f}", f"{16e6 / pairs_per_s / 3600:.0f}")


def test_rates_and_hours_of_gpus_are_those_of_the_sizing_page():
    sizing = (ROOT / "docs" / "sizing.md").read_text("utf-8")
    computed = re.findall(
        r"\| (\w+) \| (\d+) \(computed\) \| [\d.]+ \(computed\) \| (\d+) \(computed\)", sizing
    )

    assert computed
    assert re.findall(r"\| one (\w+) \| [^|]+ \| (\d+) \| (\d+) \| computed \|", README) == computed


def test_scores_of_the_packed_engine_differ_by_less_than_is_said():
    differences = [
        row["max_abs_diff"] for case in result("scoring-cpu.json").values() for row in case["rows"]
    ]

    assert "with the same scores to 1e-4" in README
    assert max(differences) < 1e-4


def test_recall_and_length_of_the_demo_were_measured():
    measured = result("demo.json")
    demo = measured["demo"]

    for name, case in (("text → image", demo), ("image → text", demo["image_to_text"])):
        before, after = case["coarse"]["recall@1"], case["fine"]["recall@1"]
        assert f"| {name} | {before:.3f} | **{after:.3f}** |" in README
    assert f"took {measured['seconds']:.0f} s on two CPU cores" in README
    assert measured["cores"] == 2


def test_what_faults_did_was_measured():
    chaos = result("chaos.json")
    ours, plain = chaos["nightshift"][-1], chaos["plain_celery"][-1]

    assert (ours["lost"], ours["duplicated"], ours["equal"]) == (0, 0, True)
    assert ours["max_abs_diff"] < 1e-5
    assert f"Under {ours['faults']} random faults" in README
    assert f"under the {plain['faults']} of these faults that concern it" in README
    assert f"lost {plain['lost']} of {plain['tasks']} tasks and did {plain['duplicated']}" in README
