"""The packed engine: the plain one's readings, whatever is packed with what."""

import logging
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nightshift.models.engine.enhancement import effective
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.packed import blocks
from nightshift.models.engine.packed.batches import batches, max_variants, unpacked_reason
from nightshift.models.engine.packed.engine import PackedEngine
from nightshift.models.engine.packed.forward import PackedForward
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.prompts import PromptGroup
from nightshift.models.engine.protocol import Group
from nightshift.models.engine.runtime.token_budget import TokenBudget
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.load import load_scorer
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.params import EnhancementParams, ScorerParams
from tests.models.readings import LABELS, OFF, ON, assert_same, between, numbers, score
from tests.models.tiny import random_image

ASK = "Does the image match the caption:"


def as_suffixes(*texts: str) -> tuple[tuple[str, ...], ...]:
    return tuple((f" <{text}>? True or False",) for text in texts)


IMAGE_GROUPS = [
    Group(
        prefix=(random_image(seed, size), ASK),
        suffixes=as_suffixes("a red square", "x", "blue " * 9),
    )
    for seed, size in ((1, (56, 56)), (2, (112, 56)), (3, (28, 84)))
]
ONE_SUFFIX = Group(prefix=(random_image(4), ASK), suffixes=as_suffixes("a circle"))
MANY_SUFFIXES = Group(
    prefix=(random_image(5), ASK),
    suffixes=as_suffixes(*(f"{'red ' * (i % 7)}{i}" for i in range(45))),
)
TEXT_ONLY = Group(prefix=("Is red blue?",), suffixes=as_suffixes("yes", "no, a red square"))
TWO_IMAGES = Group(
    prefix=(random_image(1), random_image(6, (84, 56)), ASK), suffixes=as_suffixes("a", "b c")
)
COMPOSED = Group(
    prefix=("Query image", random_image(2, (84, 56)), "Candidate image"),
    suffixes=(
        (random_image(1), "same?"),
        (random_image(3, (56, 112)), random_image(2), "Is it the same?"),
    ),
)
PAIRS = Group(
    prefix=("Query image", random_image(7), "Candidate image"),
    suffixes=tuple((random_image(10 + i // 2, (56, 28)), f"same{' red' * i}?") for i in range(16)),
)
PREFIXES = [*IMAGE_GROUPS, ONE_SUFFIX, TEXT_ONLY, TWO_IMAGES]
EVERYTHING = [*PREFIXES, COMPOSED, MANY_SUFFIXES, PAIRS]


@pytest.fixture(scope="session")
def plain(qwen: Qwen25VL) -> PlainEngine:
    return PlainEngine(qwen, PixelLimits())


@pytest.fixture
def packed(qwen: Qwen25VL) -> PackedEngine:
    return PackedEngine(qwen, qwen.layer_ops, PixelLimits())


# As the plain engine.


@pytest.mark.parametrize(
    "group",
    [IMAGE_GROUPS[1], ONE_SUFFIX, MANY_SUFFIXES, TEXT_ONLY, TWO_IMAGES, COMPOSED],
    ids=["one image", "one suffix", "many suffixes", "text", "two images", "composed"],
)
@pytest.mark.parametrize("params", [OFF, ON, EnhancementParams(trigger=9)], ids=str)
def test_a_group_reads_what_its_whole_prompts_read(
    packed: PackedEngine, plain: PlainEngine, group: Group, params: EnhancementParams
) -> None:
    assert_same(score(packed, [group], params), score(plain, [group], params))


@pytest.mark.parametrize(
    "params",
    [
        OFF,
        ON,
        *(EnhancementParams(trigger=layer) for layer in (0, 9, 16)),
        EnhancementParams(alpha=0.3, activation="identity", lens_norm="none"),
        EnhancementParams(memory="all"),
        EnhancementParams(memory="all", trigger=6),
        EnhancementParams(norm_match="sequence"),
    ],
    ids=str,
)
def test_all_kinds_of_groups_together_read_what_whole_prompts_read(
    packed: PackedEngine, plain: PlainEngine, params: EnhancementParams
) -> None:
    assert_same(score(packed, EVERYTHING, params), score(plain, EVERYTHING, params))


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("last", [MANY_SUFFIXES, PAIRS], ids=["texts", "images"])
@pytest.mark.parametrize("memory", ["image", "all"])
def test_suffixes_of_one_prefix_may_fire_at_different_layers_or_not_at_all(
    packed: PackedEngine,
    plain: PlainEngine,
    share: float,
    last: Group,
    memory: Literal["image", "all"],
) -> None:
    groups = [*PREFIXES, COMPOSED, last]
    quiet = score(plain, [last], EnhancementParams(gamma=1.0))
    gamma = between([r.trace.uncertainty for r in quiet], share)
    params = EnhancementParams(gamma=gamma, memory=memory)

    readings = score(packed, groups, params)

    of_one_prefix = {reading.trace.layer for reading in readings[-len(last.suffixes) :]}
    assert None in of_one_prefix
    assert len(of_one_prefix) >= 3
    assert_same(readings, score(plain, groups, params))


def test_a_budget_that_cuts_groups_and_blocks_of_a_few_suffixes_change_nothing(
    qwen: Qwen25VL, plain: PlainEngine
) -> None:
    packed = PackedEngine(
        qwen, qwen.layer_ops, PixelLimits(), tokens_per_batch=400, tokens_per_layer_step=70
    )

    for params in (OFF, ON, EnhancementParams(gamma=0.96)):
        assert_same(score(packed, EVERYTHING, params), score(plain, EVERYTHING, params))


# Whatever it is packed with.


@pytest.mark.parametrize("params", [OFF, ON, EnhancementParams(gamma=0.96)], ids=str)
def test_a_pair_reads_the_same_alone_and_in_any_company(
    packed: PackedEngine, params: EnhancementParams
) -> None:
    together = score(packed, PREFIXES, params)

    separate = [
        score(packed, [Group(prefix=group.prefix, suffixes=(suffix,))], params)[0]
        for group in PREFIXES
        for suffix in group.suffixes
    ]
    turned = [
        Group(prefix=group.prefix, suffixes=tuple(reversed(group.suffixes)))
        for group in reversed(PREFIXES)
    ]

    assert_same(together, separate)
    assert_same(score(packed, turned, params)[::-1], together)


@pytest.mark.parametrize(
    "params",
    [
        EnhancementParams(alpha=0.0),
        EnhancementParams(alpha=0.0, trigger=6),
        EnhancementParams(gamma=1.0),
        EnhancementParams(gamma=5.0, memory="all", norm_match="sequence"),
    ],
    ids=str,
)
def test_alpha_zero_or_gamma_one_is_no_enhancement_bit_for_bit(
    packed: PackedEngine, params: EnhancementParams
) -> None:
    readings = score(packed, EVERYTHING, params)

    assert np.array_equal(numbers(readings), numbers(score(packed, EVERYTHING, OFF)))
    assert not any(reading.trace.fired for reading in readings)


def test_nothing_to_score_gives_nothing(packed: PackedEngine) -> None:
    assert score(packed, [], ON) == []
    assert score(packed, [Group(prefix=(ASK,), suffixes=())], ON) == []


# Positions and masks, by brute force.


def test_positions_continue_as_in_the_whole_prompt(packed: PackedEngine, qwen: Qwen25VL) -> None:
    prepared = packed.prepare(EVERYTHING)

    for prompt in prepared.prompts:
        shown = [prepared.images[i] for i in prompt.images]
        assert torch.equal(prompt.positions, qwen.positions(prompt.ids, shown))


def test_a_suffix_sees_its_prefix_and_itself_and_nothing_else() -> None:
    visible = blocks.visibility([2, 3], 3, 2)[:, 0].int().tolist()

    assert visible == [
        [[1, 1, 0, 1, 0], [1, 1, 0, 1, 1]],
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
    ]
    assert blocks.visibility([3, 3, 3], 3, 2).shape == (1, 1, 2, 5)


def test_a_pack_is_one_sequence_under_a_four_dimensional_mask(
    packed: PackedEngine, qwen: Qwen25VL
) -> None:
    """The library's own forward of prefix and all suffixes in a row, the mask written out."""
    prepared = packed.prepare([IMAGE_GROUPS[1]])
    (group,) = prepared.groups
    parts = [group.prefix, *group.suffixes]
    owner = torch.cat([torch.full((len(part.ids),), i) for i, part in enumerate(parts)])
    n = len(owner)
    sees = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for j in range(i + 1):
            sees[i, j] = owner[j] == 0 or owner[j] == owner[i]
    ids = torch.cat([part.ids for part in parts])[None]
    positions = torch.cat([part.positions for part in parts], dim=1)[:, None]
    with torch.inference_mode():
        visual_tokens = qwen.encode_images(prepared.images)
        embeddings = qwen.embed(ids)
        embeddings[qwen.is_visual(ids)] = torch.cat([image.tokens for image in visual_tokens])
        states = qwen._model.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, attention_mask=sees[None, None]
        ).last_hidden_state[0]
        forward = PackedForward(qwen, qwen.layer_ops, prepared.groups, visual_tokens, OFF)
        results = dict(zip(forward.names, forward.run(), strict=True))

    for i, suffix in enumerate(group.suffixes, start=1):
        end = int((owner == i).nonzero()[-1])
        assert torch.allclose(results[suffix.name], states[end], atol=1e-5)


# What is packed, and what is not.


@pytest.mark.parametrize(
    ("params", "group", "reason"),
    [
        (ON, IMAGE_GROUPS[0], None),
        (ON, TEXT_ONLY, None),
        (ON, COMPOSED, None),
        (EnhancementParams(memory="all"), IMAGE_GROUPS[0], None),
        (EnhancementParams(alpha=0.0, norm_match="sequence"), COMPOSED, None),
        (EnhancementParams(gamma=1.0, norm_match="sequence"), COMPOSED, None),
        (
            EnhancementParams(norm_match="sequence", trigger=3),
            IMAGE_GROUPS[0],
            "norm_match=sequence",
        ),
    ],
)
def test_what_cannot_be_packed_exactly_is_read_whole_and_reported(
    packed: PackedEngine,
    params: EnhancementParams,
    group: Group,
    reason: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        score(packed, [group], params)
        score(packed, [group], params)

    reported = unpacked_reason(effective(params))
    if reason is None:
        assert reported is None
        assert not caplog.records
    else:
        assert reason in reported
        assert [reason in record.getMessage() for record in caplog.records] == [True]


def test_the_main_jobs_scorer_is_packed(qwen_folder) -> None:
    scorer = load_scorer(f"hf:{qwen_folder}", ScorerParams(), device="cpu")

    assert isinstance(scorer._engine, PackedEngine)


@pytest.mark.parametrize("params", [OFF, ON])
@pytest.mark.parametrize("budget", [1, 150, 400, 10_000])
def test_batches_hold_every_suffix_once_and_keep_to_the_budget(
    packed: PackedEngine, budget: int, params: EnhancementParams
) -> None:
    groups = packed.prepare(EVERYTHING).groups

    def variants(group: PromptGroup) -> int:
        return max_variants(group, params, 18)

    cut = list(batches(groups, budget, variants))

    names = [suffix.name for batch in cut for group in batch for suffix in group.suffixes]
    assert sorted(names) == sorted(s.name for group in groups for s in group.suffixes)
    for batch in cut:
        longest = max(len(group.prefix.ids) for group in batch)
        tokens = sum(
            longest * min(variants(group), len(group.suffixes))
            + sum(len(s.ids) for s in group.suffixes)
            for group in batch
        )
        assert tokens <= budget or sum(len(group.suffixes) for group in batch) == 1


def test_a_prefix_goes_through_the_decoder_once(packed: PackedEngine, qwen: Qwen25VL) -> None:
    prepared = packed.prepare([MANY_SUFFIXES])
    (group,) = prepared.groups
    tokens: list[int] = []
    hook = qwen.decoder.feed_forwards[3].register_forward_hook(
        lambda _module, inputs, _output: tokens.append(inputs[0].shape[:2].numel())
    )
    try:
        packed.score(prepared, labels=LABELS, enhancement=OFF)
    finally:
        hook.remove()

    suffixes = sum(len(suffix.ids) for suffix in group.suffixes)
    # Blocks hold suffixes of similar length: little of them is padding.
    assert len(group.prefix.ids) + suffixes <= sum(tokens) < len(group.prefix.ids) + 1.3 * suffixes


def test_a_prefix_is_read_once_up_to_the_layer_where_prompts_look_at_their_own_images(
    packed: PackedEngine, qwen: Qwen25VL
) -> None:
    prepared = packed.prepare([PAIRS])
    (group,) = prepared.groups
    tokens = {3: 0, 10: 0}

    def counted(layer: int) -> RemovableHandle:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            tokens[layer] += inputs[0].shape[:2].numel()

        return qwen.decoder.feed_forwards[layer].register_forward_hook(hook)

    hooks = [counted(layer) for layer in tokens]
    try:
        packed.score(prepared, labels=LABELS, enhancement=EnhancementParams(trigger=8))
    finally:
        for hook in hooks:
            hook.remove()

    # Two suffixes show the same image: they share what it made of the prefix.
    variants = len(group.suffixes) // 2
    assert tokens[10] - tokens[3] == (variants - 1) * len(group.prefix.ids)


# When things go wrong.


def out_of_memory_beyond(monkeypatch: pytest.MonkeyPatch, qwen: Qwen25VL, tokens: int) -> None:
    """Refuse, as a full device would, to embed more than so many tokens at once."""
    embed = qwen.embed

    def limited(ids: Tensor) -> Tensor:
        if ids.numel() > tokens:
            raise torch.OutOfMemoryError("no room")
        return embed(ids)

    monkeypatch.setattr(qwen, "embed", limited)


@pytest.mark.parametrize("engine", ["packed", "plain"])
def test_out_of_memory_means_smaller_batches(
    engine: str, qwen: Qwen25VL, plain: PlainEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [*PREFIXES, COMPOSED]
    expected = score(plain, groups, ON)
    kinds = {"packed": lambda: PackedEngine(qwen, qwen.layer_ops, PixelLimits())}
    small = kinds.get(engine, lambda: PlainEngine(qwen, PixelLimits()))()
    before = small._budget.tokens
    out_of_memory_beyond(monkeypatch, qwen, 110)

    assert_same(score(small, groups, ON), expected)
    assert small._budget.tokens < before


def test_a_pair_that_does_not_fit_alone_is_refused_with_its_tokens_and_the_limit(
    packed: PackedEngine, qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = packed.prepare([ONE_SUFFIX]).prompts[0]
    out_of_memory_beyond(monkeypatch, qwen, 3)

    with pytest.raises(InputError, match=f"{len(prompt.ids)} tokens .* limit") as refused:
        score(packed, [ONE_SUFFIX], OFF)

    assert (refused.value.reason, refused.value.subject_id) == ("out_of_memory", "0/0")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling a function",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",
    ],
)
def test_a_vision_tower_out_of_memory_sees_fewer_images_at_once(
    said: str, packed: PackedEngine, qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [
        Group(prefix=(random_image(seed, (112, 112)), ASK), suffixes=as_suffixes("a"))
        for seed in range(3)
    ]
    expected = score(packed, large, OFF)
    tower, sizes = qwen.encode_images, []

    def limited(images: list) -> list:
        sizes.append(len(images))
        if len(images) > 1:
            raise RuntimeError(said)
        return tower(images)

    monkeypatch.setattr(qwen, "encode_images", limited)
    qwen.vision_cache.clear()

    assert_same(score(packed, large, OFF), expected)
    assert sizes[0] == 3
    assert sizes.count(1) == 3, "each image is still seen once"


def test_an_image_that_does_not_fit_alone_is_refused_with_its_tokens(
    packed: PackedEngine, qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_images: list) -> list:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(qwen, "encode_images", full)
    qwen.vision_cache.clear()

    with pytest.raises(InputError, match=r"image 0 has 4 tokens .* limit") as refused:
        score(packed, IMAGE_GROUPS[:1], OFF)

    assert refused.value.reason == "out_of_memory"


def test_other_errors_are_not_taken_for_a_full_memory() -> None:
    def broken(_batch: list[int]) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        TokenBudget(8).run([1], lambda work, _: iter([list(work)]), broken, lambda _: None)


def test_readings_that_are_not_finite_are_refused_by_place(
    packed: PackedEngine, qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = qwen.embed

    def broken(ids: Tensor) -> Tensor:
        embeddings = embed(ids)
        embeddings[(ids == qwen.text.ids("x")[0]).any(1)] *= torch.nan
        return embeddings

    monkeypatch.setattr(qwen, "embed", broken)
    with pytest.raises(InputError) as refused:
        score(packed, IMAGE_GROUPS[:1], OFF)

    assert (refused.value.reason, refused.value.subject_id) == ("score_not_finite", "0/1")


@pytest.mark.parametrize("n_pairs", [7, 8])
def test_eight_distinct_pairs_that_read_the_same_mean_a_broken_model(
    packed: PackedEngine, qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch, n_pairs: int
) -> None:
    monkeypatch.setattr(qwen, "embed", lambda ids: torch.ones(*ids.shape, 64))
    same = [Group(prefix=(ASK,), suffixes=as_suffixes(*"abcdefgh"[:n_pairs], *"aaaaaaaa"))]

    if n_pairs == 8:
        with pytest.raises(ModelError, match="8 distinct pairs"):
            score(packed, same, OFF)
    else:
        assert len(score(packed, same, OFF)) == 15
