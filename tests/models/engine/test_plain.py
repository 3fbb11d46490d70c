"""The plain engine: against the upstream library, prompt by prompt."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Group, Reading
from nightshift.models.engine.readout import head_logits, read_labels
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Labels
from tests.models.tiny import CHAT_TEMPLATE, SPECIALS, qwen_tokenizer, random_image

OFF = EnhancementParams(trigger="never")
LABELS = Labels(positive="True", negative="False")
ASK = "Does the image match the caption:"
CAPTIONS = ["a red square", "a large blue circle on grass left of a square", "x"]
GROUPS = [
    Group(prefix=(random_image(1), ASK), suffixes=tuple((f" <{c}>?",) for c in CAPTIONS)),
    Group(
        prefix=("Query image", random_image(2, (84, 56)), "Candidate image"),
        suffixes=(
            (random_image(1), "same?"),
            (random_image(3, (56, 112)), random_image(2), "Is it the same?"),
        ),
    ),
    Group(prefix=("Does the query: <red> match the text:",), suffixes=((" <blue>?",),)),
]


@pytest.fixture(scope="session")
def engine(qwen: Qwen25VL) -> PlainEngine:
    return PlainEngine(qwen, PixelLimits())


def score(engine: PlainEngine, groups: Sequence[Group]) -> list[tuple[Reading, ...]]:
    return engine.score(engine.prepare(groups), labels=LABELS, enhancement=OFF)


def flat(readings: list[tuple[Reading, ...]]) -> np.ndarray:
    """(n, 4): both labels, log-sum-exp, entropy."""
    return np.array(
        [[*r.label_logits, r.logsumexp, r.entropy] for group in readings for r in group]
    )


def upstream_inputs(qwen: Qwen25VL, folder, pieces: Sequence[str | Image.Image]) -> dict:
    from transformers import AutoProcessor

    content = [
        {"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p}
        for p in pieces
    ]
    return AutoProcessor.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )


def prompts_of(groups: Sequence[Group]) -> list[tuple[str | Image.Image, ...]]:
    return [(*group.prefix, *suffix) for group in groups for suffix in group.suffixes]


def test_prompts_are_tokenised_as_the_checkpoints_own_processor_does(
    engine: PlainEngine, qwen: Qwen25VL, qwen_folder
) -> None:
    prepared = engine.prepare(GROUPS)

    for prompt, pieces in zip(prepared.prompts, prompts_of(GROUPS), strict=True):
        theirs = upstream_inputs(qwen, qwen_folder, pieces)
        assert prompt.ids.tolist() == theirs["input_ids"][0].tolist()


def test_readings_are_those_of_the_upstream_forward(
    engine: PlainEngine, qwen: Qwen25VL, qwen_folder
) -> None:
    ids = [qwen.text.label(label) for label in ("True", "False")]

    ours = flat(score(engine, GROUPS))

    for reading, pieces in zip(ours, prompts_of(GROUPS), strict=True):
        with torch.no_grad():
            logits = qwen._model(**upstream_inputs(qwen, qwen_folder, pieces)).logits[0, -1]
        p = logits.double().softmax(0)
        theirs = [*logits[ids].tolist(), float(logits.logsumexp(0)), float(-(p * p.log()).sum())]
        assert reading == pytest.approx(theirs, abs=1e-5)


def test_a_batch_reads_what_single_prompts_read(engine: PlainEngine) -> None:
    together = flat(score(engine, GROUPS))

    separate = [
        flat(score(engine, [Group(prefix=group.prefix, suffixes=(suffix,))]))[0]
        for group in GROUPS
        for suffix in group.suffixes
    ]
    assert together == pytest.approx(np.array(separate), abs=1e-5)


def test_permuting_groups_and_suffixes_permutes_the_readings(engine: PlainEngine) -> None:
    turned = [
        Group(prefix=group.prefix, suffixes=tuple(reversed(group.suffixes)))
        for group in reversed(GROUPS)
    ]

    assert flat(score(engine, turned)) == pytest.approx(flat(score(engine, GROUPS))[::-1], abs=1e-5)


def test_more_prompts_than_one_batch_holds_come_back_in_order(engine: PlainEngine) -> None:
    texts = [f"{'red ' * (i % 7)}{i}" for i in range(150)]
    group = Group(prefix=(random_image(1), ASK), suffixes=tuple((f" <{text}>?",) for text in texts))
    some = Group(prefix=group.prefix, suffixes=group.suffixes[70:72])

    assert flat(score(engine, [group]))[70:72] == pytest.approx(
        flat(score(engine, [some])), abs=1e-5
    )


def test_each_distinct_image_is_seen_once(engine: PlainEngine, qwen: Qwen25VL) -> None:
    recorded: list[int] = []
    qwen.vision_cache.clear()
    hook = qwen._model.model.visual.register_forward_hook(
        lambda _module, _inputs, output: recorded.append(len(output.pooler_output))
    )
    # The same pixels in another object are the same image.
    other_group = Group(prefix=(random_image(1), ASK), suffixes=((" <again>?",),))
    try:
        score(engine, [GROUPS[0], other_group, GROUPS[0]])
    finally:
        hook.remove()

    assert recorded == [4]


@pytest.mark.parametrize("control", SPECIALS)
def test_a_control_token_in_a_caption_is_text(
    engine: PlainEngine, qwen: Qwen25VL, control: str
) -> None:
    def control_ids(caption: str) -> list[int]:
        prompt = engine.prepare(
            [Group(prefix=(random_image(1), ASK), suffixes=((f" <{caption}>?",),))]
        ).prompts[0]
        known = set(qwen_tokenizer().convert_tokens_to_ids(list(SPECIALS)))
        return [item_id for item_id in prompt.ids.tolist() if item_id in known]

    assert control_ids(f"a {control}{control} b") == control_ids("a b")
    assert np.isfinite(
        flat(score(engine, [Group(prefix=(random_image(1),), suffixes=((control,),))]))
    ).all()


def test_user_text_is_tokenised_as_usual_where_it_is_harmless(qwen: Qwen25VL) -> None:
    text = "Großes Haus, 东京 <b> 100 %\n\n\ttabs"

    assert qwen.text.ids(text) == qwen_tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_a_label_of_several_tokens_is_refused(qwen: Qwen25VL) -> None:
    with pytest.raises(ModelError, match="Truthfully"):
        qwen.text.label("Truthfully")


def test_pixel_limits_bound_the_visual_tokens(qwen: Qwen25VL) -> None:
    large = random_image(5, (280, 280))

    n_tokens = [
        qwen.prepare_image(large, limits).n_tokens
        for limits in (
            PixelLimits(),
            PixelLimits(max_pixels=56 * 56),
            PixelLimits(min_pixels=140 * 140, max_pixels=140 * 140),
        )
    ]

    assert n_tokens == [16, 4, 25]


def test_a_checkpoint_without_a_sensible_limit_gets_the_published_one(
    qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen._images, "size", {"shortest_edge": 56**2, "longest_edge": 10**8})

    photo = qwen.prepare_image(random_image(1, (1600, 1200)), PixelLimits())

    assert 400 < photo.n_tokens <= 512


def test_a_prompt_longer_than_the_model_reads_is_refused_by_place(engine: PlainEngine) -> None:
    with pytest.raises(InputError, match="of which the model reads 512") as refused:
        engine.prepare([GROUPS[0], Group(prefix=("a",), suffixes=(("b",), ("red " * 600,)))])

    assert (refused.value.reason, refused.value.subject_id) == ("prompt_too_long", "1/1")


def test_an_image_that_cannot_be_resized_is_refused(engine: PlainEngine) -> None:
    with pytest.raises(InputError, match="1 × 400") as refused:
        engine.prepare([Group(prefix=(random_image(1, (1, 400)),), suffixes=(("a",),))])

    assert refused.value.reason == "image_shape"


def test_readings_that_are_not_finite_are_refused_by_place(
    engine: PlainEngine, qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = qwen.embed

    def broken(ids: Tensor) -> Tensor:
        embeddings = embed(ids)
        embeddings[(ids == qwen.text.ids("x")[0]).any(1)] *= torch.nan
        return embeddings

    monkeypatch.setattr(qwen, "embed", broken)
    with pytest.raises(InputError) as refused:
        score(engine, [GROUPS[0]])

    assert (refused.value.reason, refused.value.subject_id) == ("score_not_finite", "0/2")


def test_nothing_to_score_gives_nothing(engine: PlainEngine) -> None:
    assert score(engine, []) == []


def test_logits_of_bfloat16_weights_are_not_rounded_to_bfloat16() -> None:
    torch.manual_seed(0)
    weight, states = torch.randn(9000, 16).bfloat16(), torch.randn(3, 16).bfloat16()

    logits = head_logits(weight, states)

    exact = states.double() @ weight.double().T
    assert logits.dtype == torch.float32
    assert torch.allclose(logits.double(), exact, atol=1e-5)


def test_entropy_ranges_from_none_to_that_of_all_tokens() -> None:
    sure, blank = torch.zeros(1, 1000), torch.zeros(1, 1000)
    sure[0, 3] = 200.0

    assert float(read_labels(torch.eye(1000), sure, [3, 4]).entropy) == pytest.approx(0, abs=1e-6)
    assert float(read_labels(torch.eye(1000), blank, [3, 4]).entropy) == pytest.approx(
        np.log(1000), abs=1e-5
    )
    assert float(read_labels(torch.eye(1000), sure, [3, 4]).logsumexp) == 200.0
    assert read_labels(torch.eye(1000), sure, [3, 4]).label_logits.tolist() == [[200.0, 0.0]]


def test_the_template_of_the_tests_is_the_checkpoints(qwen: Qwen25VL) -> None:
    words = qwen_tokenizer().decode(qwen.text.join(qwen.turn.text_head))

    assert words == CHAT_TEMPLATE.split("{%")[0] + "<|im_start|>user\n"
