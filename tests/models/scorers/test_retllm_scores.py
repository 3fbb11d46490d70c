"""RetLLM's other scores on a real model class: full vocabulary, lists, and written numbers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor

from nightshift.models.engine.enhancement import enhanced
from nightshift.models.engine.generation.enhancement import DecodingEnhancement
from nightshift.models.engine.generation.generate import generate
from nightshift.models.engine.prompts import PreparedPrompts, embed
from nightshift.models.engine.visual import encode_images
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.binding import bind
from nightshift.models.scorers.generated import NumberScorer
from nightshift.models.scorers.lists import ListScorer
from nightshift.models.scorers.pairs import PairScorer, PreparedPairs
from nightshift.models.scorers.protocol import PairGroup, PairReading, Scorer
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.params import EnhancementParams, ScoreName, ScorerParams
from nightshift.scoring.fusion import probability
from nightshift.scoring.log_odds import MAX_LOG_ODDS
from nightshift.scoring.methods.retllm import ENHANCEMENTS, RETLLM
from nightshift.scoring.tie_break import break_ties
from tests.models.tiny import random_image

OFF = EnhancementParams(trigger="never")
PHOTO = ItemContent(images=(random_image(1),))
CAPTIONS = tuple(ItemContent(texts=(text,)) for text in ("a blue circle", "grass", "a cat", "red"))


def params(score: ScoreName, enhancement: EnhancementParams = OFF, **more: int) -> ScorerParams:
    framing = RETLLM.framing_for(score).name
    return ScorerParams(score=score, framing=framing, enhancement=enhancement, **more)


def bound(qwen: Qwen25VL, score: ScoreName, *args: EnhancementParams, **more: int) -> Scorer:
    # Random weights never come to an end.
    return bind(qwen, params(score, *args, **more), "test", max_written_tokens=5)


def read(scorer: Scorer, *groups: PairGroup) -> list[tuple[PairReading, ...]]:
    return scorer.score(scorer.prepare(groups))


def captions(*others: ItemContent) -> PairGroup:
    return PairGroup(shared_side="query", shared=PHOTO, others=others)


def upstream(qwen: Qwen25VL, folder: Path, question: str) -> Tensor:
    """Last logits (vocabulary,) of the library's own model and processor."""
    inputs = AutoProcessor.from_pretrained(folder).apply_chat_template(
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": PHOTO.images[0]},
                    {"type": "text", "text": question},
                ],
            }
        ],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        results: Tensor = qwen._model(**inputs).logits[0, -1]
    return results


# The positive label among all words.


def test_the_released_code_s_score_is_the_softmax_over_all_words(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    question = (
        "Does the image match the caption: <a blue circle>? Please directly output True or False"
    )
    p = upstream(qwen, qwen_folder, question).softmax(0)[qwen.text.label("True")]

    ((reading,),) = read(bound(qwen, "p_true_full"), captions(CAPTIONS[0]))

    assert probability(reading.margin) == pytest.approx(float(p), rel=1e-4)
    ((two_way,),) = read(bound(qwen, "margin_2way"), captions(CAPTIONS[0]))
    assert (two_way.logit_positive, two_way.entropy) == (reading.logit_positive, reading.entropy)


@pytest.mark.parametrize("score", ["p_true_full", "number"])
def test_permuting_the_candidates_permutes_pairwise_scores(
    qwen: Qwen25VL, score: ScoreName
) -> None:
    scorer, order = bound(qwen, score, ENHANCEMENTS["code"]), [2, 0, 3, 1]

    (readings,) = read(scorer, captions(*CAPTIONS))
    (permuted,) = read(scorer, captions(*(CAPTIONS[i] for i in order)))

    expected = [readings[i] for i in order]
    assert [r.written for r in permuted] == [r.written for r in expected]
    assert [r.margin for r in permuted] == pytest.approx([r.margin for r in expected], abs=1e-5)


@pytest.mark.parametrize("name", ["default", "code", "paper"])
def test_a_preset_scores_every_kind_of_pair(qwen: Qwen25VL, name: str) -> None:
    preset = RETLLM.preset(name)
    framing = preset.framing_for(preset.score).name
    scorer = bind(
        qwen,
        ScorerParams(score=preset.score, framing=framing, enhancement=preset.enhancement),
        "test",
        max_written_tokens=5,
    )
    kinds = (
        ItemContent(texts=("red",)),
        PHOTO,
        ItemContent(texts=("red",), images=(random_image(2),)),
    )

    for query, candidate in product(kinds, kinds):
        group = PairGroup(shared_side="query", shared=query, others=(candidate,))
        ((reading,),) = read(scorer, group)
        assert np.isfinite(reading.margin)
        # The released code looks at all of the prompt again, images or not.
        assert reading.trace.fired == bool(query.images or candidate.images or name == "code")


# Lists.


def test_a_list_reads_the_numbers_of_the_published_prompt(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    question = (
        "What is in this picture?\nChoose the most relevant sentence of the image from the "
        "following options: 1: a blue circle, 2: grass, 3: a cat, 4: red. You should directly "
        "output the answer index, for example: 1."
    )
    logits = upstream(qwen, qwen_folder, question)
    chances = logits[[qwen.text.label(number) for number in "1234"]].softmax(0)

    (readings,) = read(bound(qwen, "listwise"), captions(*CAPTIONS))

    assert probability([r.margin for r in readings]) == pytest.approx(chances.numpy(), abs=1e-5)
    for reading in readings:
        assert reading.logsumexp == pytest.approx(float(logits.logsumexp(0)), abs=1e-4)
        assert reading.logit_negative == pytest.approx(reading.logit_positive - reading.margin)


def test_lists_of_several_lengths_are_read_together_as_alone(qwen: Qwen25VL) -> None:
    scorer = bound(qwen, "listwise", ENHANCEMENTS["default"])
    groups = [captions(*CAPTIONS[:2]), captions(*CAPTIONS), captions(CAPTIONS[3])]

    together = read(scorer, *groups)

    for results, group in zip(together, groups, strict=True):
        (separate,) = read(scorer, group)
        assert [r.margin for r in results] == pytest.approx([r.margin for r in separate], abs=1e-5)
        assert all(reading.trace.fired for reading in results)
    assert together[2][0].margin == pytest.approx(MAX_LOG_ODDS), "a list of one is sure"


def test_all_orders_of_a_list_forget_where_a_candidate_stood(qwen: Qwen25VL) -> None:
    turned = [*CAPTIONS[1:], CAPTIONS[0]]

    def margins(scorer: Scorer, some: Sequence[ItemContent]) -> list[float]:
        (readings,) = read(scorer, captions(*some))
        return [reading.margin for reading in readings]

    once, often = bound(qwen, "listwise"), bound(qwen, "listwise", list_orders=4)
    straight, reordered = margins(once, CAPTIONS), margins(once, turned)
    assert [*straight[1:], straight[0]] != pytest.approx(reordered, abs=1e-3), "the order matters"
    straight, reordered = margins(often, CAPTIONS), margins(often, turned)
    assert [*straight[1:], straight[0]] == pytest.approx(reordered, abs=1e-5)


def test_equal_captions_of_a_list_keep_their_own_places(qwen: Qwen25VL) -> None:
    """The released code maps an answer back to the first candidate of that text."""
    (readings,) = read(bound(qwen, "listwise"), captions(CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]))

    first, _, third = (reading.margin for reading in readings)
    assert first != pytest.approx(third, abs=1e-4)
    assert probability([r.margin for r in readings]).sum() == pytest.approx(1, abs=1e-5)


def test_a_list_of_images_or_of_ten_is_refused_by_place(qwen: Qwen25VL) -> None:
    scorer = bound(qwen, "listwise")
    for others, reason in (((PHOTO,), "no_prompt"), (CAPTIONS * 3, "list_too_long")):
        with pytest.raises(InputError) as refused:
            scorer.prepare([captions(CAPTIONS[0]), captions(*others)])
        assert (refused.value.reason, refused.value.subject_id) == (reason, "1")


# Written numbers.


@pytest.fixture
def scribe(qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the tiny model write what a trained one would."""

    def writes(*texts: str) -> None:
        waiting = iter(texts)
        monkeypatch.setattr(type(qwen.text), "read", lambda _self, _ids: next(waiting))

    return writes


def test_a_written_number_is_the_score_and_its_words_are_kept(
    qwen: Qwen25VL, scribe: Callable[..., None]
) -> None:
    scribe("Answer: 0.8500", "0.3", "no idea")

    (readings,) = read(bound(qwen, "number"), captions(*CAPTIONS[:3]))

    assert probability([r.margin for r in readings]) == pytest.approx([0.85, 0.3, 0], abs=1e-6)
    assert [r.written for r in readings] == ["Answer: 0.8500", "0.3", "no idea"]
    assert {(r.logit_positive, r.logsumexp, r.entropy) for r in readings} == {(None,) * 3}


def test_numbers_that_tie_are_ordered_by_the_entropy_of_the_second_question(
    qwen: Qwen25VL, qwen_folder: Path, scribe: Callable[..., None]
) -> None:
    scribe("Answer: 0.85", "Answer: 0.33", "Answer: 0.85", "Answer: 0.25")
    scorer = bound(qwen, "number")
    (readings,) = read(scorer, captions(*CAPTIONS))
    tied = [0, 2]

    (requested,) = read(scorer.for_ties(), captions(*(CAPTIONS[i] for i in tied)))

    expected = []
    for i in tied:
        question = f", {CAPTIONS[i].texts[0]}. Does the candidate match the query, True or False."
        log_p = upstream(qwen, qwen_folder, question).log_softmax(0)
        expected.append(float(-(log_p.exp() * log_p).sum()))
    assert [reading.entropy for reading in requested] == pytest.approx(expected, abs=1e-4)
    entropies = [np.nan] * 4
    for i, entropy in zip(tied, expected, strict=True):
        entropies[i] = entropy
    placed = break_ties([r.margin for r in readings], entropies, [1, 2, 3, 4])
    winner = min(tied, key=lambda i: entropies[i])
    assert placed[winner].final_rank == 1
    assert [p.decided_by for p in placed] == ["entropy", "score", "entropy", "score"]


def test_a_number_is_written_token_by_token_under_the_enhancement(qwen: Qwen25VL) -> None:
    """Reading the prompt is the plain engine's forward; memory comes from the prompt alone."""
    on = ENHANCEMENTS["paper"]
    scorer = bound(qwen, "number", on)
    assert isinstance(scorer, NumberScorer)
    prepared = scorer.prepare([captions(CAPTIONS[0])])
    assert isinstance(prepared, PreparedPairs)
    assert isinstance(prepared.groups, PreparedPrompts)
    (prompt,), images = prepared.groups.prompts, prepared.groups.images
    with torch.inference_mode():
        visual_tokens = encode_images(qwen, images)
        decoding = DecodingEnhancement(qwen.decoder, on, [prompt], visual_tokens)
        (ids,) = generate(
            qwen, [prompt], visual_tokens, max_tokens=3, stop_ids=(), enhancement=decoding
        )
        embedded = embed(qwen, [prompt], visual_tokens)
        with enhanced(qwen.decoder, on, [visual_tokens[0].tokens], [len(prompt.ids)]) as state:
            last = qwen.decode(embedded)[0, -1]
        first = int((qwen.decoder.head_weight @ last).argmax())

    assert ids[0] == first
    (expected,), (trace,) = state.traces(), decoding.traces
    assert (trace.fired, trace.layer) == (expected.fired, expected.layer)
    assert trace.uncertainty == pytest.approx(expected.uncertainty, abs=1e-5)
    assert trace.fired
    (memory,) = decoding._memories
    assert torch.equal(memory, visual_tokens[0].tokens), "a token that was written is no image"


@pytest.mark.parametrize("memory", ["image", "all"])
def test_numbers_written_together_are_those_written_alone(
    qwen: Qwen25VL, memory: Literal["image", "all"]
) -> None:
    longer = ItemContent(texts=("a red square left of a large circle",))
    groups = [captions(*CAPTIONS[:3]), captions(longer)]
    quiet = read(bound(qwen, "number", EnhancementParams(gamma=1)), *groups)
    recorded = sorted(reading.trace.uncertainty or 0.0 for group in quiet for reading in group)
    # Two of the four prompts are uncertain enough to look again, and so are some of their words.
    some = EnhancementParams(gamma=sum(recorded[1:3]) / 2, memory=memory)
    scorer = bound(qwen, "number", some)

    together = [reading for group in read(scorer, *groups) for reading in group]

    separate = [
        read(scorer, replace(group, others=(other,)))[0][0]
        for group in groups
        for other in group.others
    ]
    assert [reading.written for reading in together] == [reading.written for reading in separate]
    assert [reading.trace.fired for reading in together] == [
        reading.trace.fired for reading in separate
    ]
    assert {reading.trace.fired for reading in together} == {True, False}


@pytest.mark.parametrize(
    "enhancement", [EnhancementParams(alpha=0), EnhancementParams(gamma=1), OFF], ids=str
)
def test_what_cannot_fire_writes_what_the_plain_model_writes(
    qwen: Qwen25VL, enhancement: EnhancementParams
) -> None:
    group = captions(*CAPTIONS[:2])

    (readings,) = read(bound(qwen, "number", enhancement), group)
    (plain,) = read(bound(qwen, "number", ENHANCEMENTS["paper"]).plain(), group)

    assert [r.written for r in readings] == [r.written for r in plain]
    assert not any(reading.trace.fired for reading in (*readings, *plain))


def test_a_model_without_layers_to_take_apart_cannot_write_enhanced(
    qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen, "layer_ops", None)

    with pytest.raises(ModelError, match="--enhancement off"):
        bound(qwen, "number", ENHANCEMENTS["paper"])

    ((reading,),) = read(bound(qwen, "number"), captions(CAPTIONS[0]))
    assert reading.written is not None
    assert not reading.trace.fired


@pytest.mark.parametrize("broken", [True, False])
def test_one_number_of_eight_pairs_is_no_fault_but_one_sum_of_logits_is(
    qwen: Qwen25VL, scribe: Callable[..., None], monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    group = captions(*(ItemContent(texts=(f"caption {i}",)) for i in range(8)))
    scribe(*["Answer: 0.0000"] * 8)
    if broken:
        monkeypatch.setattr(qwen, "embed", lambda ids: torch.ones(*ids.shape, 64))
        with pytest.raises(ModelError, match="8 distinct pairs"):
            read(bound(qwen, "number"), group)
    else:
        margins = [reading.margin for reading in read(bound(qwen, "number"), group)[0]]
        assert margins == pytest.approx([-MAX_LOG_ODDS] * 8)


def test_logits_that_are_not_finite_write_nothing(
    qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = qwen.embed
    monkeypatch.setattr(qwen, "embed", lambda ids: embeddings(ids) * torch.nan)

    with pytest.raises(InputError) as refused:
        read(bound(qwen, "number"), captions(CAPTIONS[0]))

    assert (refused.value.reason, refused.value.subject_id) == ("score_not_finite", "0/0")


@pytest.mark.parametrize(
    ("score", "kind"),
    [
        ("margin_2way", PairScorer),
        ("p_true_full", PairScorer),
        ("number", NumberScorer),
        ("listwise", ListScorer),
    ],
)
def test_each_score_has_its_scorer_and_a_plain_twin(
    qwen: Qwen25VL, score: ScoreName, kind: type
) -> None:
    scorer = bound(qwen, score, ENHANCEMENTS["default"])

    assert type(scorer) is type(scorer.plain()) is kind
    assert scorer.fingerprint == scorer.plain().fingerprint
