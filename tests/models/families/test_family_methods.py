"""Every family under the prompts of every method and framing: packed as single."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nightshift.models.checkpoints.describe import FAMILIES
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Engine, Group, PreparedGroups, Reading
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.binding import engine_for
from nightshift.models.scorers.lists import ListScorer
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import PairGroup
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.methods.registry import FRAMINGS, METHODS, framings_of, tie_framing
from nightshift.scoring.prompts import Framing, Labels, Numbers
from tests.models.readings import OFF, assert_same, between
from tests.models.tiny import random_image
from tests.models.tiny_families import loaded, save_family

TEXTS = tuple(ItemContent(texts=(text,)) for text in ("a red square", "grass"))
IMAGES = (ItemContent(images=(random_image(1),)), ItemContent(images=(random_image(2, (90, 40)),)))
BOTH = tuple(
    ItemContent(texts=text.texts, images=image.images)
    for text, image in zip(TEXTS, IMAGES, strict=True)
)
#: Queries and candidates of two kinds of sides, and what methods for images are asked.
SIDES = ((TEXTS, IMAGES), (BOTH[:1], BOTH))
IMAGE_SIDES = ((IMAGES[:1], IMAGES),)
#: Prompts are short: images in many tiles are compared in `test_families`.
LIMITS = PixelLimits(max_pixels=2 * 28 * 28)


@dataclass
class Collecting:
    """An `Engine` that only collects what a method asks."""

    groups: list[Group] = field(default_factory=list)

    def prepare_image(self, _: object) -> NoReturn:
        raise NotImplementedError

    def prepare(self, groups: Sequence[Group]) -> PreparedGroups:
        self.groups += groups
        return self  # type: ignore[return-value]

    def score(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError


def every_way_of_asking() -> Iterator[tuple[str, Labels | Numbers, list[Group]]]:
    """Framings in all their variants: what is read, and the prompts as the method groups them."""
    for name, method in METHODS.items():
        for rule in method.framings:
            options: dict[str, Any] = {"method": name, "framing": rule.name, "enhancement": OFF}
            if rule.asks_for == "index":
                yield rule.name, Numbers(k=2), listed(ScorerParams(score="listwise", **options))
                continue
            if rule.asks_for == "number":
                options["score"] = "number"
            elif rule.name in {"freeret", "freeret_candidate_first"}:
                options["debias"] = "swap"
            elif name == "indexmllm":
                options["symmetrise"] = True
            params = ScorerParams(**options)
            yield rule.name, rule.labels, paired(framings_of(params))
            if tie := tie_framing(params):
                yield tie.name, tie.labels, paired((tie,))


def paired(rules: tuple[Framing, ...]) -> list[Group]:
    collecting = Collecting()
    scorer = PairScorer(collecting, rules, OFF, "test")
    for queries, candidates in IMAGE_SIDES if rules[0] in METHODS["indexmllm"].framings else SIDES:
        shared_side = rules[0].shared_side(kinds(queries[0]), kinds(candidates[0]))
        shared, others = queries, candidates
        if shared_side == "candidate":
            shared, others = candidates, queries
        scorer.prepare(
            [PairGroup(shared_side=shared_side, shared=entry, others=others) for entry in shared]
        )
    return collecting.groups


def listed(params: ScorerParams) -> list[Group]:
    collecting = Collecting()
    scorer = ListScorer(
        collecting, FRAMINGS[params.framing], params.model_copy(update={"list_orders": 2}), "test"
    )
    for queries in (IMAGES, BOTH):
        scorer.prepare([PairGroup(shared_side="query", shared=queries[0], others=TEXTS)])
    return collecting.groups


def kinds(content: ItemContent) -> frozenset[Any]:
    return frozenset([*["text"] * bool(content.texts), *["image"] * bool(content.images)])


PROMPT_CASES = list(every_way_of_asking())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random model of each family in turn."""
    folder: Path = tmp_path_factory.mktemp("x") / request.param
    family = loaded(request.param, save_family(request.param, folder))
    if family.layer_ops is None:
        pytest.skip(f"cannot be packed: {family.report.unpacked_reason}")
    return family


def read(
    engine: Callable[[Family, PixelLimits], Engine],
    family: Family,
    labels: Labels | Numbers,
    groups: Sequence[Group],
    params: EnhancementParams,
) -> list[Reading]:
    asking = engine(family.with_labels(labels.words), LIMITS)
    readings = asking.score(asking.prepare(groups), labels=labels, enhancement=params)
    return [reading for group in readings for reading in group]


def by_labels() -> Iterator[tuple[Labels | Numbers, list[Group]]]:
    """All prompts that are read by the same labels together."""
    for labels in dict.fromkeys(labels for _, labels, _ in PROMPT_CASES):
        yield (
            labels,
            [group for _, other, groups in PROMPT_CASES if other == labels for group in groups],
        )


def test_every_framing_of_every_method_is_asked() -> None:
    assert {name for name, _, _ in PROMPT_CASES} == {*FRAMINGS, "retllm_tie"}
    # FreeRet's own order: a text that is shared, and images behind it.
    assert any(
        all(isinstance(piece, str) for piece in group.prefix)
        and not all(isinstance(piece, str) for suffix in group.suffixes for piece in suffix)
        for _, _, groups in PROMPT_CASES
        for group in groups
    )


@pytest.mark.parametrize("params", [OFF, EnhancementParams(trigger=2)], ids=["off", "forced"])
def test_packed_equals_single_under_every_method_s_prompts(
    family: Family, params: EnhancementParams, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nightshift"):
        for labels, groups in by_labels():
            packed, single = (
                read(engine, family, labels, groups, params) for engine in (engine_for, PlainEngine)
            )

            assert_same(packed, single)
            assert {reading.trace.fired for reading in packed} == {params is not OFF}
    assert not caplog.records, "a pack was read whole"


def test_packed_equals_single_where_some_of_a_method_s_prompts_fire(family: Family) -> None:
    for labels, groups in by_labels():
        quiet = read(engine_for, family, labels, groups, EnhancementParams(gamma=1.0))
        gamma = between([reading.trace.uncertainty for reading in quiet], 0.5)

        packed, single = (
            read(engine, family, labels, groups, EnhancementParams(gamma=gamma))
            for engine in (engine_for, PlainEngine)
        )

        assert {reading.trace.fired for reading in packed} == {True, False}
        assert_same(packed, single)
