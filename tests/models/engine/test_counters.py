"""A model counts its work: prefixes as the engine ran them, images as they were encoded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightshift.models.checkpoints.describe import describe_vision
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.packed.engine import PackedEngine
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Engine, Group
from nightshift.models.engine.runtime.counters import WorkCounters
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.content import ItemContent
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Labels
from tests.models.stored import visual_tokens_of
from tests.models.tiny import random_image

LABELS = Labels(positive="True", negative="False")
OFF = EnhancementParams(trigger="never")
WORDS = ("grass", "a red square", "a blue circle", "large")


def questions_about(*shown: object) -> list[Group]:
    """Four questions about each image."""
    suffixes = tuple((word,) for word in WORDS)
    return [Group(prefix=(item,), suffixes=suffixes) for item in shown]  # type: ignore[arg-type]


def work_of(family: Qwen25VL, engine: Engine, groups: list[Group]) -> WorkCounters:
    before = replace(family.counters)
    engine.score(engine.prepare(groups), labels=LABELS, enhancement=OFF)
    return family.counters.since(before)


@pytest.fixture
def packed(qwen: Qwen25VL) -> PackedEngine:
    assert qwen.layer_ops is not None
    qwen.vision_cache.clear()
    return PackedEngine(qwen, qwen.layer_ops, PixelLimits())


def test_a_packed_prefix_counts_once_and_a_whole_prompt_has_one_of_its_own(
    qwen: Qwen25VL, packed: PackedEngine
) -> None:
    groups = questions_about(random_image(1), random_image(2), random_image(1))

    assert work_of(qwen, packed, groups) == WorkCounters(prefixes=3, images=2)
    qwen.vision_cache.clear()
    plain = PlainEngine(qwen, PixelLimits())
    assert work_of(qwen, plain, groups) == WorkCounters(prefixes=12, images=2)


def test_an_image_seen_lately_is_not_sent_through_the_tower_again(
    qwen: Qwen25VL, packed: PackedEngine
) -> None:
    assert work_of(qwen, packed, questions_about(random_image(1), random_image(2))).images == 2
    assert work_of(qwen, packed, questions_about(random_image(2), random_image(3))).images == 1

    larger = PackedEngine(qwen, packed._layer_ops, PixelLimits(min_pixels=112 * 112))
    assert work_of(qwen, larger, questions_about(random_image(2))).images == 1, (
        "another size is another image"
    )


def test_what_was_kept_reads_the_same_bit_for_bit(qwen: Qwen25VL, packed: PackedEngine) -> None:
    groups = questions_about(random_image(1), random_image(2))
    first, repeated = (
        packed.score(packed.prepare(groups), labels=LABELS, enhancement=OFF) for _ in range(2)
    )

    for reading, other in zip(first, repeated, strict=True):
        for fresh, kept in zip(reading, other, strict=True):
            assert np.array_equal(fresh.label_logits, kept.label_logits)
            assert fresh.logsumexp == kept.logsumexp


def test_a_group_that_does_not_fit_one_batch_reads_its_prefix_again(
    qwen: Qwen25VL, packed: PackedEngine
) -> None:
    (group,) = packed.prepare(questions_about(random_image(1))).groups  # type: ignore[attr-defined]
    longest = max(len(suffix.ids) for suffix in group.suffixes)
    packed._budget.tokens = len(group.prefix.ids) + 2 * longest

    assert work_of(qwen, packed, questions_about(random_image(1))) == WorkCounters(
        prefixes=2, images=1
    )


def test_stored_tokens_send_no_image_through_the_tower(
    qwen: Qwen25VL, qwen_folder: Path, packed: PackedEngine
) -> None:
    facts = describe_vision(f"hf:{qwen_folder}@float32")
    (kept,) = visual_tokens_of(qwen, facts, ItemContent(images=(random_image(1), random_image(2))))

    assert work_of(qwen, packed, questions_about(*kept)) == WorkCounters(prefixes=2, images=0)
    assert work_of(qwen, packed, questions_about(kept[0], random_image(3))) == WorkCounters(
        prefixes=2, images=1
    )
