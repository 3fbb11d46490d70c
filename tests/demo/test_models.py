"""The bundled models: any library of their kind loads them, and they tell held-out scenes apart."""

import re
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from nightshift.demo.catalogue import Catalogue, build_catalogue
from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.demo.prompts import LABELS
from nightshift.demo.render import Rendering
from nightshift.demo.train.evaluate import accuracies, coarse_orders, draw_items, recalls


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue()


def test_open_clip_loads_the_coarse_model() -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{coarse_dir()}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{coarse_dir()}")
    text = model.encode_text(tokenizer(["a small red circle above a large blue square"]))
    assert text.shape == (1, 128)
    assert torch.isfinite(text).all()
    assert transform is not None


def test_transformers_loads_the_scorer() -> None:
    model = AutoModelForImageTextToText.from_pretrained(scorer_dir())
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(AutoProcessor.from_pretrained(scorer_dir())).__name__ == "Qwen2_5_VLProcessor"


@pytest.mark.parametrize("label", LABELS)
def test_every_label_is_one_token_with_and_without_a_space(label: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(scorer_dir())
    for text in (label, f" {label}"):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1


def test_the_weights_are_a_few_megabytes_of_safetensors() -> None:
    files = [*coarse_dir().glob("*.safetensors"), *scorer_dir().glob("*.safetensors")]
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) < 10 * 2**20
    for file in files:
        with safe_open(file, framework="pt") as weights:
            assert list(weights.keys())


@pytest.mark.night
def test_the_coarse_model_brings_nearly_every_item_into_the_first_twenty(
    catalogue: Catalogue,
) -> None:
    orders = coarse_orders(catalogue, coarse_dir(), draw_items(catalogue.items))
    for order in orders.values():
        assert recalls(order, catalogue)[20] >= 0.9


@pytest.mark.night
def test_the_scorer_tells_held_out_captions_from_hard_negatives(catalogue: Catalogue) -> None:
    plain = accuracies(catalogue, scorer_dir(), rendering=Rendering.PLAIN)

    assert plain["RetLLM, text and image"] >= 0.9


@pytest.mark.night
def test_the_scorer_answers_every_method_s_question_better_than_by_guessing(
    catalogue: Catalogue,
) -> None:
    reached = accuracies(catalogue, scorer_dir())

    assert reached["RetLLM, text and image"] >= 0.8
    assert min(reached.values()) >= 0.65, reached


@pytest.mark.parametrize("directory", [coarse_dir(), scorer_dir()])
def test_each_model_has_a_card_with_its_seed_steps_and_held_out_figures(directory: Path) -> None:
    card = (directory / "README.md").read_text()
    assert re.search(r"from seed \d+", card)
    assert re.search(r"\d+ steps", card)
    assert "Held-out" in card
