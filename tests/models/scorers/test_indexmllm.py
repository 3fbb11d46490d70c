"""IndexMLLM on a real model class: digits, images in pairs, and both ways round (§4.5)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_scorer
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import PairGroup, PairReading
from nightshift.schema.params import ScorerParams
from nightshift.scoring.methods.registry import framing
from tests.models.tiny import random_image

QUERY = ItemContent(images=(random_image(1),))
CANDIDATES = tuple(
    ItemContent(images=(random_image(n, size),)) for n, size in ((2, (84, 56)), (3, (56, 56)))
)


def load(folder: Path, **params: object) -> PairScorer:
    return load_scorer(
        f"hf:{folder}",
        ScorerParams(
            method="indexmllm", framing="object", enhancement={"trigger": "never"}, **params
        ),
        device="cpu",
    )


@pytest.fixture(scope="session")
def scorer(qwen_folder: Path) -> PairScorer:
    return load(qwen_folder)


def read(scorer: PairScorer, query: ItemContent, *candidates: ItemContent) -> list[PairReading]:
    group = PairGroup(shared_side="query", shared=query, others=candidates)
    (readings,) = scorer.score(scorer.prepare([group]))
    return list(readings)


def test_a_score_is_the_raw_margin_of_the_digits_in_the_published_prompt(
    scorer: PairScorer, qwen: Qwen25VL, qwen_folder: Path
) -> None:
    processor = AutoProcessor.from_pretrained(qwen_folder)
    (template,) = framing("object").templates.values()
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": template.suffix[1]}]
    rendered = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    images = [QUERY.images[0], CANDIDATES[0].images[0]]
    inputs = processor(images=images, text=[rendered], return_tensors="pt")
    with torch.inference_mode():
        logits = qwen._model(**inputs).logits[0, -1]
    one_id, zero_id = (processor.tokenizer.convert_tokens_to_ids(digit) for digit in "10")

    (reading,) = read(scorer, QUERY, CANDIDATES[0])

    assert reading.margin == pytest.approx(float(logits[one_id] - logits[zero_id]), abs=1e-5)
    assert reading.logit_positive == pytest.approx(float(logits[one_id]), abs=1e-5)


def test_a_pair_scored_both_ways_round_gives_two_scores_and_their_mean_is_symmetric(
    scorer: PairScorer, qwen_folder: Path
) -> None:
    (forth,), (back,) = read(scorer, QUERY, CANDIDATES[0]), read(scorer, CANDIDATES[0], QUERY)
    symmetric = load(qwen_folder, symmetrise=True)

    first, second = read(symmetric, QUERY, *CANDIDATES)
    (turned,) = read(symmetric, CANDIDATES[0], QUERY)

    assert abs(forth.margin - back.margin) > 1e-4
    assert first.margin == pytest.approx((forth.margin + back.margin) / 2, abs=1e-5)
    assert first.margin == pytest.approx(turned.margin, abs=1e-5)
    assert second.margin != first.margin
    assert symmetric.fingerprint != scorer.fingerprint


def test_candidates_are_distinguished_and_do_not_depend_on_their_neighbours(
    scorer: PairScorer,
) -> None:
    together = [reading.margin for reading in read(scorer, QUERY, *CANDIDATES)]
    separate = [read(scorer, QUERY, candidate)[0].margin for candidate in CANDIDATES]

    assert together == pytest.approx(separate, abs=1e-5)
    assert np.ptp(together) > 1e-4


def test_items_of_several_images_are_scored(scorer: PairScorer) -> None:
    both = ItemContent(images=CANDIDATES[0].images + CANDIDATES[1].images)
    (reading,) = read(scorer, QUERY, both)
    assert np.isfinite(reading.margin)
    assert reading.margin not in [entry.margin for entry in read(scorer, QUERY, *CANDIDATES)]
