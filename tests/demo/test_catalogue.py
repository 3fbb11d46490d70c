"""The evaluation on disk: unique, disjoint from training, reproducible, judged consistently."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nightshift.demo import catalogue, render, scenes
from nightshift.demo.catalogue import build_catalogue, is_current, write_catalogue
from nightshift.demo.render import IMAGE_SIZE, TRAINED
from nightshift.demo.scenes import Split, neighbours
from nightshift.demo.train.pool import draw_pool


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("catalogue")
    write_catalogue(directory, items=240, queries=40)
    return directory


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_no_two_items_show_or_say_the_same() -> None:
    items = build_catalogue().items
    assert len(items) >= 2000
    assert len({item.scene for item in items}) == len(items)
    assert len({item.caption for item in items}) == len(items)
    assert len({item.id for item in items}) == len(items)


def test_the_evaluation_shares_no_scene_with_training_or_validation() -> None:
    items = build_catalogue().items
    assert {item.scene.split for item in items} == {Split.TEST}
    for split in (Split.TRAIN, Split.VALIDATION):
        drawn = {scene for pair in draw_pool(0, split, 200).scenes for scene in pair}
        assert {scene.split for scene in drawn} == {split}
        assert not drawn & {item.scene for item in items}


def test_most_items_have_several_hard_negatives_in_the_catalogue() -> None:
    items = build_catalogue().items
    scenes = {item.scene for item in items}
    near = [len(scenes.intersection(neighbours(item.scene))) for item in items]
    assert np.median(near) >= 3


def test_every_item_has_its_scene_turned_beside_it() -> None:
    scenes = {item.scene for item in build_catalogue().items}
    assert {scene.turned for scene in scenes} == scenes


def test_the_same_seed_writes_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_catalogue(tmp_path, items=240, queries=40)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((written / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_what_is_drawn_already_is_left_alone(written: Path) -> None:
    assert is_current(written, items=240, queries=40)
    assert not is_current(written, items=240, queries=41)
    assert not is_current(written, seed=1, items=240, queries=40)


@pytest.mark.parametrize("module", [catalogue, render, scenes])
def test_a_catalogue_that_an_earlier_release_drew_otherwise_is_drawn_again(
    module: ModuleType, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(module.__file__ or "").read_text()
    (tmp_path / "later.py").write_text(f"{source}\n_AS_IT_IS_DRAWN_NOW = True\n")

    monkeypatch.setattr(module, "__file__", str(tmp_path / "later.py"))

    assert not is_current(written, items=240, queries=40)


def test_a_catalogue_that_was_left_half_drawn_is_drawn_again(tmp_path: Path) -> None:
    write_catalogue(tmp_path, items=40, queries=4)
    (tmp_path / "renderings.jsonl").unlink()
    (tmp_path / "renderings.jsonl").mkdir()  # cannot be written, as on a full disk

    with pytest.raises(OSError):  # noqa: PT011 - of whatever kind
        write_catalogue(tmp_path, items=40, queries=4)

    assert not is_current(tmp_path, items=40, queries=4)


def test_another_seed_draws_other_scenes() -> None:
    first, second = (build_catalogue(seed, items=100, queries=10) for seed in (1, 2))
    assert {item.scene for item in first.items} != {item.scene for item in second.items}


def test_every_image_exists_and_has_the_demo_size(written: Path) -> None:
    for name in ("items", "renderings", "queries-image", "queries-instance"):
        for record in records(written / f"{name}.jsonl"):
            with Image.open(written / record["image"]) as image:
                assert image.size == (IMAGE_SIZE, IMAGE_SIZE)
                assert image.mode == "RGB"


def test_text_queries_are_worded_again_for_most_items(written: Path) -> None:
    captions = {record["text"] for record in records(written / "items.jsonl")}
    questions = [record["text"] for record in records(written / "queries-text.jsonl")]
    assert len(set(questions)) == len(questions)
    assert sum(question in captions for question in questions) < len(questions) / 3


@pytest.mark.parametrize(
    ("qrels", "queries", "items", "relevant"),
    [
        ("text-image", "queries-text", "items", 1),
        ("image-text", "queries-image", "captions", 1),
        ("instance-image", "queries-instance", "renderings", len(TRAINED)),
    ],
)
def test_judgements_name_existing_queries_and_items(
    written: Path, qrels: str, queries: str, items: str, relevant: int
) -> None:
    lines = [line.split() for line in (written / f"qrels-{qrels}.txt").read_text().splitlines()]
    query_ids = {record["id"] for record in records(written / f"{queries}.jsonl")}
    item_ids = {record["id"] for record in records(written / f"{items}.jsonl")}
    assert {line[0] for line in lines} == query_ids
    assert {line[2] for line in lines} <= item_ids
    assert all(line[1] == "0" and line[3] == "1" for line in lines)
    assert len(lines) == relevant * len(query_ids)
