"""FreeRet's re-ranking on a real model class: a neutral choice, asked once or both ways round."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.packed.engine import PackedEngine
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Engine, Group
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.binding import bind
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import PairGroup, PairReading
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.methods.freeret import FREERET
from nightshift.scoring.methods.registry import framings_of
from nightshift.scoring.prompts import Framing, Labels, Side
from tests.models.tiny import random_image

OFF = EnhancementParams(trigger="never")
QUERIES = {
    "text": ItemContent(texts=("a red square",)),
    "image": ItemContent(images=(random_image(1),)),
    "both": ItemContent(texts=("a red square",), images=(random_image(1),)),
}
ITEMS = {
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


def asking(framing: str = "freeret", debias: str = "none") -> ScorerParams:
    return ScorerParams.model_validate(
        {"method": "freeret", "framing": framing, "debias": debias, "enhancement": OFF}
    )


def scorer(family: Qwen25VL, framing: str = "freeret", debias: str = "none") -> PairScorer:
    return bind(family, asking(framing, debias), "test")


def plain(family: Qwen25VL, rules: tuple[Framing, ...]) -> PairScorer:
    return PairScorer(PlainEngine(family, PixelLimits()), rules, OFF, "test")


def read(scorer: PairScorer, *groups: PairGroup) -> list[tuple[PairReading, ...]]:
    return scorer.score(scorer.prepare(groups))


def group(side: Side, shared: ItemContent, *others: ItemContent) -> PairGroup:
    return PairGroup(shared_side=side, shared=shared, others=others)


def margins(groups: list[tuple[PairReading, ...]]) -> list[float]:
    return [reading.margin for of_group in groups for reading in of_group]


def test_text_to_image_is_the_published_prompt_of_the_upstream_model(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    query, image = QUERIES["text"].texts[0], ITEMS["image"][0].images[0]
    before = (
        f"Task: Determine whether the candidate matches the query.\nQuery: {query}\nCandidate: "
    )
    after = (
        "\nA. Yes, the candidate fully matches the query."
        "\nB. No, the candidate does not match or only partially matches."
    )
    content = [
        {"type": "text", "text": before},
        {"type": "image", "image": image},
        {"type": "text", "text": after},
    ]
    inputs = AutoProcessor.from_pretrained(qwen_folder).apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = qwen._model(**inputs).logits[0, -1]
    expected = float(logits[qwen.text.label("A")] - logits[qwen.text.label("B")])

    readings = read(scorer(qwen), group("query", QUERIES["text"], ITEMS["image"][0]))

    assert margins(readings) == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize("framing", [rule.name for rule in FREERET.framings])
def test_packed_equals_single_for_every_framing_debiased_or_not(
    qwen: Qwen25VL, framing: str
) -> None:
    for debias in ("none", "swap"):
        rules = framings_of(asking(framing, debias))
        if "candidate_first" in framing:
            items = [entry for kind in ITEMS.values() for entry in kind]
            groups = [group("candidate", item, *QUERIES.values()) for item in items]
        else:
            groups = [group("query", QUERIES[q], *ITEMS[i]) for q, i in product(QUERIES, ITEMS)]

        packed = margins(read(scorer(qwen, framing, debias), *groups))

        assert packed == pytest.approx(margins(read(plain(qwen, rules), *groups)), abs=1e-5)
        assert len({round(entry, 4) for entry in packed}) > len(packed) / 2


def test_a_pair_s_score_does_not_depend_on_the_others_of_its_batch(qwen: Qwen25VL) -> None:
    method = scorer(qwen, debias="swap")
    candidates = [item for kind in ITEMS.values() for item in kind]
    separate = [
        margins(read(method, group("query", QUERIES["image"], item)))[0] for item in candidates
    ]

    together = read(
        method,
        group("query", QUERIES["image"], *reversed(candidates)),
        group("query", QUERIES["text"], *candidates),
    )

    assert [r.margin for r in reversed(together[0])] == pytest.approx(separate, abs=1e-5)


def test_a_debiased_score_is_the_mean_of_both_questions(qwen: Qwen25VL) -> None:
    pairs = group("query", QUERIES["text"], *ITEMS["image"])
    rule, swapped = framings_of(asking(debias="swap"))
    straight, mirrored = (margins(read(plain(qwen, (each,)), pairs)) for each in (rule, swapped))

    results = margins(read(scorer(qwen, debias="swap"), pairs))

    assert results == pytest.approx(np.mean([straight, mirrored], axis=0), abs=1e-5)
    assert abs(straight[0] - mirrored[0]) > 1e-3, "the letter alone sways a random model"


def test_a_debiased_score_is_antisymmetric_under_relabelling(qwen: Qwen25VL) -> None:
    """Calling the other answer the positive one turns the sign; the order asked in does not."""
    pairs = group("query", QUERIES["text"], *ITEMS["both"])
    rule, swapped = framings_of(asking(debias="swap"))
    results = margins(read(plain(qwen, (rule, swapped)), pairs))

    turned = margins(read(plain(qwen, (relabelled(rule), relabelled(swapped))), pairs))
    other_first = margins(read(plain(qwen, (swapped, rule)), pairs))

    assert turned == pytest.approx([-margin for margin in results], abs=1e-6)
    assert other_first == pytest.approx(results, abs=1e-6)


@pytest.mark.parametrize("debias", ["none", "swap"])
def test_a_subtracted_prior_is_what_the_question_gets_by_itself_for_every_pair(
    qwen: Qwen25VL, debias: str
) -> None:
    params = asking("freeret_yes_no", debias)
    groups = [group("query", QUERIES[q], *ITEMS[i]) for q, i in product(QUERIES, ITEMS)]
    separate: list[float] = []
    for rule in framings_of(params):
        context_free = rule.context_free()
        (words,), (ending,) = context_free.prefix, context_free.suffix
        assert isinstance(words, str)
        assert isinstance(ending, str)
        engine = PlainEngine(qwen, PixelLimits())
        prepared = engine.prepare([Group(prefix=(), suffixes=((words + ending,),))])
        ((reading,),) = engine.score(prepared, labels=rule.labels, enhancement=OFF)
        separate.append(float(reading.label_logits[0] - reading.label_logits[1]))

    kept = bind(qwen, params, "test")
    neutral = bind(qwen, params.model_copy(update={"subtract_prior": True}), "test")
    before, after = (margins(read(entry, *groups)) for entry in (kept, neutral))

    assert np.array(before) - np.array(after) == pytest.approx(np.mean(separate), abs=1e-5)
    assert abs(np.mean(separate)) > 1e-3
    assert [entry.margin for entry in read(neutral, groups[0])[0]] == pytest.approx(
        after[:2], abs=1e-5
    )


def test_both_questions_of_a_pair_share_one_prefix(qwen: Qwen25VL) -> None:
    recorded: list[int] = []

    class Counting(PackedEngine):
        def prepare(self, groups: object) -> object:  # type: ignore[override]
            recorded.append(len(groups))  # type: ignore[arg-type]
            return super().prepare(groups)  # type: ignore[arg-type]

    assert qwen.layer_ops is not None
    engine: Engine = Counting(qwen, qwen.layer_ops, PixelLimits())  # type: ignore[assignment]
    method = PairScorer(engine, framings_of(asking(debias="swap")), OFF, "test")

    prepared = method.prepare([group("query", QUERIES["image"], *ITEMS["both"])])

    assert (recorded, prepared.n_suffixes) == ([1], 4)


def relabelled(rule: Framing) -> Framing:
    labels = Labels(positive=rule.labels.negative, negative=rule.labels.positive)
    return Framing(name=rule.name, version="1", labels=labels, templates=rule.templates)
