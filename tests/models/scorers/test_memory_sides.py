"""The enhancement reads the images of one side again, in their size."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nightshift.models.checkpoints.describe import describe_vision
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.visual import prepare_image
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.binding import bind
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import PairGroup
from nightshift.schema.params import EnhancementParams, ScorerParams, TokenParams
from nightshift.scoring.methods.registry import framings_of
from tests.models.tiny import random_image

QUERY = ItemContent(images=(random_image(1),))
ITEMS = tuple(ItemContent(images=(random_image(seed),)) for seed in (2, 3))


def margins(family: Qwen25VL, *, unpacked: bool = False, **enhancement: Any) -> list[float]:
    params = ScorerParams(enhancement=EnhancementParams(trigger=6, **enhancement))
    scorer: Any = bind(family, params, "test")
    if unpacked:
        engine = PlainEngine(family, PixelLimits())
        scorer = PairScorer(engine, framings_of(params), params.enhancement, "test")
    group = PairGroup(shared_side="query", shared=QUERY, others=ITEMS)
    (readings,) = scorer.score(scorer.prepare([group]))
    return [result.margin for result in readings]


def test_the_images_of_one_side_can_be_looked_at_again(qwen: Qwen25VL) -> None:
    results = {
        side: margins(qwen, memory=side, alpha=0.5) for side in ("image", "query", "candidate")
    }

    assert len({tuple(result) for result in results.values()}) == 3
    for side, packed in results.items():
        assert packed == pytest.approx(
            margins(qwen, unpacked=True, memory=side, alpha=0.5), abs=1e-5
        )


def test_a_side_without_an_image_leaves_the_pair_plain(qwen: Qwen25VL) -> None:
    def score(**enhancement: Any) -> tuple[float, bool]:
        params = ScorerParams(enhancement=EnhancementParams(**enhancement))
        scorer = bind(qwen, params, "test")
        words = ItemContent(texts=("a red square",))
        group = PairGroup(shared_side="query", shared=QUERY, others=(words,))
        ((readings,),) = scorer.score(scorer.prepare([group]))
        return readings.margin, readings.trace.fired

    assert score(trigger=6, memory="candidate") == (score(trigger="never")[0], False)
    assert score(trigger=6, memory="query") == score(trigger=6)


@pytest.mark.parametrize(
    ("size", "scaled"), [((40, 20), (112, 56)), ((300, 401), (83, 112)), ((112, 3), (112, 3))]
)
def test_the_longer_side_is_scaled_before_the_limits_apply(
    qwen: Qwen25VL, size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    image = random_image(4, size)
    ours = prepare_image(qwen, image, PixelLimits(long_side=112))
    by_hand = prepare_image(qwen, image.resize(scaled, Image.Resampling.BICUBIC), PixelLimits())

    assert ours.key == by_hand.key  # type: ignore[attr-defined]


def test_a_side_names_another_vision_tower_and_is_silent_where_there_is_none(
    qwen_folder: Path,
) -> None:
    spec = f"hf:{qwen_folder}@float32"

    assert "long_side" not in describe_vision(spec).card
    assert describe_vision(spec, long_side=756) != describe_vision(spec)
    assert "long_side" not in ScorerParams().model_dump(mode="json")
    assert TokenParams(long_side=756).model_dump()["long_side"] == 756
    assert TokenParams.model_validate(TokenParams().model_dump()) == TokenParams()
