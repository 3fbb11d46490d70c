"""RetLLM on a real model class: nine combinations of query and candidate, scored pair by pair."""

from dataclasses import replace
from itertools import product
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
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.methods.registry import FRAMINGS, framing
from nightshift.scoring.methods.retllm import ENHANCEMENTS, RETLLM
from nightshift.scoring.prompts import Content, Framing, Labels
from nightshift.scoring.tie_break import break_ties
from tests.models.tiny import random_image

KINDS = ("text", "image", "both")
QUERY = {
    "text": ItemContent(texts=("a red square",)),
    "image": ItemContent(images=(random_image(1),)),
    "both": ItemContent(texts=("a red square",), images=(random_image(1),)),
}
CANDIDATES = {
    "text": (ItemContent(texts=("a blue circle",)), ItemContent(texts=("grass",))),
    "image": (
        ItemContent(images=(random_image(2),)),
        ItemContent(images=(random_image(3, (84, 56)),)),
    ),
    "both": (
        ItemContent(texts=("a blue circle",), images=(random_image(2),)),
        ItemContent(texts=("grass",), images=(random_image(3, (84, 56)),)),
    ),
}


@pytest.fixture(scope="session")
def scorer(qwen_folder: Path) -> PairScorer:
    return load_scorer(f"hf:{qwen_folder}", ScorerParams(), device="cpu")


def read(scorer: PairScorer, *groups: PairGroup) -> list[tuple[PairReading, ...]]:
    return scorer.score(scorer.prepare(groups))


def by_query(query: ItemContent, *candidates: ItemContent) -> PairGroup:
    return PairGroup(shared_side="query", shared=query, others=candidates)


@pytest.mark.parametrize(("query", "candidate"), list(product(KINDS, KINDS)))
def test_each_of_the_nine_combinations_scores_and_tells_candidates_apart(
    scorer: PairScorer, query: str, candidate: str
) -> None:
    ((entry, other),) = read(scorer, by_query(QUERY[query], *CANDIDATES[candidate]))

    for reading in (entry, other):
        assert reading.margin == np.float32(reading.logit_positive - reading.logit_negative)
        assert np.isfinite([reading.margin, reading.logsumexp, reading.entropy]).all()
        assert 0 < reading.entropy < np.log(700)
        assert reading.trace.fired == (query != "text" or candidate != "text")
    assert abs(entry.margin - other.margin) > 1e-4


@pytest.mark.parametrize(("query", "candidate"), list(product(KINDS, KINDS)))
def test_the_side_that_a_group_shares_does_not_change_a_score(
    scorer: PairScorer, query: str, candidate: str
) -> None:
    (expected,) = read(scorer, by_query(QUERY[query], *CANDIDATES[candidate]))

    readings = read(
        scorer,
        *(
            PairGroup(shared_side="candidate", shared=entry, others=(QUERY[query],))
            for entry in CANDIDATES[candidate]
        ),
    )

    assert [r.margin for (r,) in readings] == pytest.approx([r.margin for r in expected], abs=1e-5)


def test_text_to_image_is_the_published_prompt_of_the_upstream_model(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    params = ScorerParams(enhancement=ENHANCEMENTS["off"])
    scorer = load_scorer(f"hf:{qwen_folder}", params, device="cpu")
    caption, image = QUERY["text"].texts[0], CANDIDATES["image"][0].images[0]
    question = (
        f"Does the image match the caption: <{caption}>? Please directly output True or False"
    )
    inputs = AutoProcessor.from_pretrained(qwen_folder).apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": image}, {"type": "text", "text": question}],
            }
        ],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = qwen._model(**inputs).logits[0, -1]
    expected = float(logits[qwen.text.label("True")] - logits[qwen.text.label("False")])

    ((reading,),) = read(scorer, by_query(QUERY["text"], CANDIDATES["image"][0]))

    assert reading.margin == pytest.approx(expected, abs=1e-5)


def test_candidates_of_several_kinds_are_scored_in_order_in_one_group(scorer: PairScorer) -> None:
    candidates = [candidate for kind in KINDS for candidate in CANDIDATES[kind]]
    separate = [
        read(scorer, by_query(QUERY["image"], candidate))[0][0].margin for candidate in candidates
    ]

    (together,) = read(scorer, by_query(QUERY["image"], *candidates))

    assert [reading.margin for reading in together] == pytest.approx(separate, abs=1e-5)


def test_permuting_candidates_permutes_the_ranking(scorer: PairScorer) -> None:
    candidates = [ItemContent(images=(random_image(seed),)) for seed in range(6)]
    order = [3, 0, 5, 1, 4, 2]
    (entry,) = read(scorer, by_query(QUERY["text"], *candidates))
    (other,) = read(scorer, by_query(QUERY["text"], *(candidates[i] for i in order)))

    def ranks(readings: tuple[PairReading, ...], coarse: list[int]) -> list[int]:
        placed = break_ties(
            [r.margin for r in readings], [r.entropy for r in readings], coarse, quantum=0.01
        )
        return [placement.final_rank for placement in placed]

    assert ranks(other, [i + 1 for i in order]) == [
        ranks(entry, [1, 2, 3, 4, 5, 6])[i] for i in order
    ]


def test_all_images_of_a_side_are_read(scorer: PairScorer) -> None:
    first, second = random_image(1), random_image(4)
    ((single, double, turned),) = read(
        scorer,
        by_query(
            QUERY["text"],
            *(
                ItemContent(images=images)
                for images in ((first,), (first, second), (second, first))
            ),
        ),
    )

    assert len({round(r.margin, 4) for r in (single, double, turned)}) == 3


def test_a_pair_of_images_is_not_symmetric(scorer: PairScorer) -> None:
    first, second = (ItemContent(images=(random_image(seed),)) for seed in (1, 2))
    ((there,), (back,)) = read(scorer, by_query(first, second), by_query(second, first))

    assert there.margin != pytest.approx(back.margin, abs=1e-4)


def test_an_empty_candidate_is_refused_by_place(scorer: PairScorer) -> None:
    with pytest.raises(InputError) as refused:
        scorer.prepare([by_query(QUERY["text"], CANDIDATES["text"][0], ItemContent())])

    assert (refused.value.reason, refused.value.subject_id) == ("no_prompt", "0/1")


def test_labels_that_are_no_single_tokens_are_refused_at_load(
    qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_false = framing("retllm")
    wordy = Framing(
        name="wordy",
        version="1",
        labels=Labels(positive="Certainly", negative="Never"),
        templates=true_false.templates,
    )
    registry = "nightshift.scoring.methods.registry"
    monkeypatch.setattr(f"{registry}.FRAMINGS", {**FRAMINGS, "wordy": wordy})
    monkeypatch.setattr(f"{registry}.METHODS", {"retllm": replace(RETLLM, framings=(wordy,))})

    with pytest.raises(ModelError, match="Certainly"):
        load_scorer(f"hf:{qwen_folder}", ScorerParams(framing="wordy"), device="cpu")


def test_every_published_prompt_splits_into_the_tokens_of_the_whole(qwen: Qwen25VL) -> None:
    """The prefix is tokenised apart from the suffix; Qwen's split joins marks and letters."""
    for query, candidate in product(KINDS, KINDS):
        prompt = framing("retllm").render(
            Content(
                texts=("a red square",) if query != "image" else (), n_images=int(query != "text")
            ),
            Content(
                texts=("Élan: (b)",) if candidate != "image" else (),
                n_images=int(candidate != "text"),
            ),
        )
        end, begin = prompt.prefix[-1], prompt.suffix[0]
        if isinstance(end, str) and isinstance(begin, str):
            apart = qwen.text.ids(end) + qwen.text.ids(begin)
            assert apart == qwen.text.ids(end + begin)


def test_the_enhancements_of_the_presets_differ() -> None:
    assert len({params.model_dump_json() for params in ENHANCEMENTS.values()}) == len(ENHANCEMENTS)
    assert ENHANCEMENTS["default"] == EnhancementParams()
    assert ENHANCEMENTS["paper"].alpha == 0.3
    assert ENHANCEMENTS["code"].memory == "all"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_scores_come_close_and_are_not_quantised(
    scorer: PairScorer, qwen_folder: Path, precision: str
) -> None:
    half = load_scorer(f"hf:{qwen_folder}@{precision}", ScorerParams(), device="cpu")
    group = by_query(QUERY["image"], *CANDIDATES["both"], *CANDIDATES["text"])
    (exact,), (results,) = read(scorer, group), read(half, group)

    assert [r.margin for r in results] == pytest.approx([r.margin for r in exact], abs=0.1)
    # A logit that went through bfloat16 has at most eight significant bits.
    logits = torch.tensor([r.logit_positive for r in results])
    assert (logits.bfloat16().float() != logits).any()
    assert half.fingerprint != scorer.fingerprint
