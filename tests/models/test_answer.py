"""Generation with the weights that embed and score: exact, and left alone by them."""

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from nightshift.models.answer import Answerer, GeneratedAnswer, Question
from nightshift.models.cache import ModelCache
from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.generation.generate import generate
from nightshift.models.engine.prompt_writer import prepare
from nightshift.models.engine.prompts import PreparedPrompts
from nightshift.models.engine.protocol import Group
from nightshift.models.engine.visual import encode_images
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.protocol import PairGroup
from nightshift.schema.errors import InputError
from nightshift.schema.params import EnhancementParams, ScorerParams
from tests.models.stored import codec_of, stored
from tests.models.tiny import random_image

QUERY = ItemContent(texts=("a red square",))
RESULTS = (
    ItemContent(texts=("grass",), images=(random_image(1),)),
    ItemContent(images=(random_image(2, (84, 56)), random_image(3))),
)
QUESTION = Question(query=QUERY, results=RESULTS)


@pytest.fixture
def prompts(qwen: Qwen25VL) -> PreparedPrompts:
    groups = [
        Group(prefix=(), suffixes=((random_image(1), "What is this?"),)),
        Group(prefix=(), suffixes=(("A red square: ", random_image(2, (84, 56)), " or grass?"),)),
        Group(prefix=(), suffixes=(("one word",),)),
    ]
    return prepare(qwen, PixelLimits(), groups)


def tokens(
    family: Qwen25VL, prompts: PreparedPrompts, *, stop: frozenset[int] = frozenset()
) -> list[int]:
    return [token for reading in generated_singly(family, prompts, stop=stop) for token in reading]


def generated_singly(
    family: Qwen25VL, prompts: PreparedPrompts, *, stop: frozenset[int] = frozenset()
) -> list[list[int]]:
    visual_tokens = encode_images(family, prompts.images)
    return [
        generate(family, [prompt], visual_tokens, max_tokens=12, stop_ids=stop)[0]
        for prompt in prompts.prompts
    ]


def test_the_tokens_are_those_of_the_library_s_own_generation(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    question = "What is this?"
    content = [{"type": "image", "image": random_image(1)}, {"type": "text", "text": question}]
    inputs = AutoProcessor.from_pretrained(qwen_folder).apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    library = qwen._model.generate(**inputs, do_sample=False, max_new_tokens=12, eos_token_id=None)
    prepared = prepare(
        qwen, PixelLimits(), [Group(prefix=(), suffixes=((random_image(1), question),))]
    )

    assert tokens(qwen, prepared) == library[0, inputs["input_ids"].shape[1] :].tolist()


def test_kept_keys_and_values_change_no_token(
    qwen: Qwen25VL, prompts: PreparedPrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tokens(qwen, prompts)
    monkeypatch.setattr(qwen, "layer_ops", None)

    assert tokens(qwen, prompts) == kept
    assert len(set(kept)) > 3


@pytest.mark.parametrize("apart", [True, False])
def test_prompts_of_different_lengths_write_at_once_what_each_writes_alone(
    qwen: Qwen25VL, prompts: PreparedPrompts, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    singly = generated_singly(qwen, prompts)
    if not apart:
        monkeypatch.setattr(qwen, "layer_ops", None)
    visual_tokens = encode_images(qwen, prompts.images)

    together = generate(qwen, prompts.prompts, visual_tokens, max_tokens=12, stop_ids=())

    assert together == singly
    assert len({len(prompt.ids) for prompt in prompts.prompts}) == 3


@pytest.mark.parametrize("apart", [True, False])
def test_an_answer_that_ends_early_leaves_the_others_as_they_are(
    qwen: Qwen25VL, prompts: PreparedPrompts, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    first, *_ = generated_singly(qwen, prompts)
    stop = frozenset({first[3]})
    singly = generated_singly(qwen, prompts, stop=stop)
    if not apart:
        monkeypatch.setattr(qwen, "layer_ops", None)

    together = generate(
        qwen, prompts.prompts, encode_images(qwen, prompts.images), max_tokens=12, stop_ids=stop
    )

    assert together == singly
    assert len({len(reading) for reading in together}) > 1


def test_a_stop_token_ends_an_answer_and_is_no_part_of_it(
    qwen: Qwen25VL, prompts: PreparedPrompts
) -> None:
    visual_tokens = encode_images(qwen, prompts.images)
    (complete,) = generate(qwen, prompts.prompts[:1], visual_tokens, max_tokens=12, stop_ids=())
    at = next(i for i in range(1, 12) if complete[i] not in complete[:i])

    (cut,) = generate(
        qwen, prompts.prompts[:1], visual_tokens, max_tokens=12, stop_ids={complete[at]}
    )

    assert cut == complete[:at]
    assert qwen.text.ids("x")[0] not in qwen.stop_ids
    assert qwen._processor.tokenizer.eos_token_id in qwen.stop_ids


def test_embedding_scoring_and_answering_share_weights_and_leave_them_alone(
    qwen_folder: Path,
) -> None:
    """The same tokens before and after everything that hooks into the decoder."""
    cache = ModelCache(device="cpu")
    params = ScorerParams(enhancement=EnhancementParams(gamma=0.0))
    facts = describe_scorer(f"hf:{qwen_folder}@float32", params)
    embedding = describe_embedder(f"freeret:{qwen_folder}@float32")
    answerer = cache.answerer(facts.spec, params, facts.fingerprint)
    family = cache._family
    assert family is not None
    before = answerer.answer([QUESTION])

    embedder = cache.embedder(embedding.spec, embedding.fingerprint)
    embedder.embed(embedder.prepare(RESULTS, "candidate"))
    scorer = cache.scorer(facts.spec, params, facts.fingerprint)
    pairs = PairGroup(shared_side="query", shared=QUERY, others=RESULTS)
    (readings,) = scorer.score(scorer.prepare([pairs]))

    assert all(reading.trace.fired for reading in readings)
    second_answerer = cache.answerer(facts.spec, params, facts.fingerprint)
    assert second_answerer is answerer
    assert second_answerer.answer([QUESTION]) == before
    assert cache._family is family


def test_stored_tokens_give_the_answer_of_the_pixels_and_no_image_is_looked_at(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    tower = describe_vision(f"hf:{qwen_folder}@float32")
    answerer = Answerer(qwen, PixelLimits(), max_tokens=16)

    def answered(result: ItemContent) -> GeneratedAnswer:
        (answer,) = answerer.answer([Question(query=QUERY, results=(result,))])
        assert isinstance(answer, GeneratedAnswer)
        return answer

    first, second = (ItemContent(images=(random_image(seed, (112, 112)),)) for seed in (1, 7))
    from_pixels = answered(first)
    later = stored(qwen, tower, first, codec_of("none"))
    images_before = qwen.counters.images

    assert answered(later) == from_pixels
    assert qwen.counters.images == images_before
    assert answered(second).text != from_pixels.text


def test_an_answer_is_text_without_control_tokens(
    qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = Answerer(qwen, PixelLimits(), max_tokens=40)
    said = [qwen.text.trusted("<|im_end|>")[0], *qwen.text.ids("the grass [2], [7]")]
    monkeypatch.setattr("nightshift.models.answer.generate", lambda *_, **__: [said])

    (answer,) = answerer.answer([QUESTION])

    assert isinstance(answer, GeneratedAnswer)
    assert (answer.text, answer.cited) == ("the grass [2], [7]", (1,))
    assert (answer.n_tokens, answer.ended) == (len(said), True)


def test_results_that_leave_no_room_for_an_answer_fail_alone(qwen: Qwen25VL) -> None:
    answerer = Answerer(qwen, PixelLimits(), max_tokens=12)
    long = Question(query=QUERY, results=(*RESULTS, ItemContent(texts=("grass " * 450,))))
    other = Question(query=QUERY, results=RESULTS[1:])

    first, refused, last = answerer.answer([QUESTION, long, other])

    assert isinstance(refused, InputError)
    assert refused.reason == "prompt_too_long"
    assert "max_pixels" in str(refused)
    assert [first, last] == answerer.answer([QUESTION, other])
    assert all(isinstance(entry, GeneratedAnswer) for entry in (first, last))


def test_generation_is_the_same_in_half_precision_runs(qwen_folder: Path) -> None:
    cache = ModelCache(device="cpu")
    facts = describe_scorer(f"hf:{qwen_folder}@bfloat16", ScorerParams())
    answerer = cache.answerer(facts.spec, ScorerParams(), facts.fingerprint)

    assert answerer.answer([QUESTION]) == answerer.answer([QUESTION])
    assert cache._family is not None
    assert cache._family.decoder.head_weight.dtype == torch.bfloat16
