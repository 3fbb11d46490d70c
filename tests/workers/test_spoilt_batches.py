"""A bad record or pair fails by itself, and the others of its micro-batch are done once."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nightshift.models.embedders.protocol import EmbeddedContents
from nightshift.models.engine.protocol import Trace
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.protocol import PairGroup, PairReading
from nightshift.schema.errors import InputError
from nightshift.schema.identity import ContentHashes
from nightshift.schema.records import TextPart
from nightshift.scoring.prompts import Side
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.workers.contents import open_readers
from nightshift.workers.embed import embed_records
from nightshift.workers.groups import GroupReader, Groups
from nightshift.workers.score import Scores

TEXT = frozenset({"text"})
#: Refused while it is prepared, or not before the model has run.
TOO_LONG, NOT_FINITE = "TOO_LONG", "NOT_FINITE"


def records(*texts: str) -> dict[int, StoredRecord]:
    return {
        i: StoredRecord(
            id=i,
            external_id=f"{i}",
            parts=(TextPart(text=text),),
            hashes=ContentHashes(text=text.encode(), image=None, both=text.encode()),
        )
        for i, text in enumerate(texts, 1)
    }


def refuse(word: str, contents: Sequence[ItemContent]) -> None:
    if any(word in text for content in contents for text in content.texts):
        raise InputError(f"something is {word}", word.lower())


class Steps:
    """A `Progress` that counts."""

    def __init__(self) -> None:
        self.n = 0

    def step(self) -> None:
        self.n += 1


class NothingStored:
    """No visual tokens."""

    def locate(self, _: object) -> None: ...

    def read(self, *_: object) -> tuple[()]:
        return ()


@dataclass
class TextEmbedder:
    """An `Embedder` of a text's length."""

    dim: int = 1

    def prepare_image(self, image: object) -> Any:
        raise NotImplementedError

    def prepare(self, contents: Sequence[ItemContent], side: Side) -> Any:
        refuse(TOO_LONG, contents)
        return contents

    def embed(self, contents: Any) -> EmbeddedContents:
        refuse(NOT_FINITE, contents)
        lengths = [[len(content.texts[0])] for content in contents]
        return EmbeddedContents(vectors=np.array(lengths, np.float32), notices=())


@dataclass
class TextScorer:
    """A `Scorer` whose margin is the length of both texts, and a hundred more if enhanced."""

    enhanced: bool = True

    def plain(self) -> "TextScorer":
        return TextScorer(enhanced=False)

    def prepare_image(self, image: object) -> Any:
        raise NotImplementedError

    def prepare(self, groups: Sequence[PairGroup]) -> Any:
        refuse(TOO_LONG, [entry for group in groups for entry in (group.shared, *group.others)])
        return groups

    def score(self, groups: Any) -> list[tuple[PairReading, ...]]:
        refuse(NOT_FINITE, [entry for group in groups for entry in (group.shared, *group.others)])
        return [
            tuple(self._reading(group.shared, entry) for entry in group.others) for group in groups
        ]

    def _reading(self, shared: ItemContent, candidate: ItemContent) -> PairReading:
        margin = len(shared.texts[0]) + len(candidate.texts[0]) + 100 * self.enhanced
        return PairReading(
            margin=float(margin),
            logit_positive=0.0,
            logit_negative=0.0,
            logsumexp=0.0,
            entropy=0.0,
            trace=Trace(fired=self.enhanced, layer=3, uncertainty=0.9),
        )


@pytest.mark.parametrize("bad", [TOO_LONG, NOT_FINITE])
def test_a_record_that_spoils_its_batch_fails_alone(bad: str) -> None:
    by_id = records("a", "bb", bad, "dddd")
    steps = Steps()

    done = embed_records(
        TextEmbedder(),  # type: ignore[arg-type]
        list(by_id.values()),
        TEXT,
        steps,  # type: ignore[arg-type]
        side="candidate",
        stored=NothingStored(),  # type: ignore[arg-type]
    )

    assert [record.external_id for record in done.records] == ["1", "2", "4"]
    assert done.vectors.tolist() == [[1], [2], [4]]
    assert [(record.subject_id, record.reason) for record in done.outcomes] == [("3", bad.lower())]
    assert steps.n == 5, "as long as it goes on, it says so"


def scored(
    groups: Groups,
    side: Side,
    queries: dict[int, StoredRecord],
    items: dict[int, StoredRecord],
    *,
    lists: bool = False,
) -> tuple[Scores, Steps]:
    """One micro-batch; pairs of query 1 are scored without the enhancement too."""
    scorer: Any = TextScorer()
    steps: Any = Steps()
    run: Any = SimpleNamespace(id=7, scorer_fingerprint="f")
    stored: Any = NothingStored()
    reader = GroupReader(
        scorer=scorer,
        stored=stored,
        shared_side=side,
        queries=queries,
        items=items,
        query_kinds=TEXT,
        item_kinds=TEXT,
    )
    scores = Scores(
        run=run,
        scorer=scorer,
        query_kinds=TEXT,
        item_kinds=TEXT,
        compared=frozenset({1}),
        lists=lists,
        progress=steps,
    )
    with open_readers() as readers:
        scores.add(reader.read(groups, readers))
    return scores, steps


@pytest.mark.parametrize("bad", [TOO_LONG, NOT_FINITE])
@pytest.mark.parametrize("side", ["query", "candidate"])
def test_a_pair_that_spoils_its_batch_fails_alone_and_the_others_are_scored_once(
    bad: str, side: Side
) -> None:
    queries, items = records("q", "qq"), records("a", bad, "ccc")
    # All six pairs, by what they share.
    groups = (
        ((1, (1, 2, 3)), (2, (1, 2, 3)))
        if side == "query"
        else ((1, (1, 2)), (2, (1, 2)), (3, (1, 2)))
    )

    scores, steps = scored(groups, side, queries, items)

    margins = {(row.query_id, row.item_id): (row.margin, row.plain_margin) for row in scores.rows}
    assert margins == {
        (1, 1): (102, 2),
        (1, 3): (104, 4),
        (2, 1): (103, None),
        (2, 3): (105, None),
    }
    assert len(scores.rows) == 4
    failed = [(outcome.subject_id, outcome.reason) for outcome in scores.outcomes]
    assert sorted(failed) == [("1 → 2", bad.lower()), ("2 → 2", bad.lower())]
    assert steps.n == 6, "as long as it goes on, it says so"


def test_a_list_that_spoils_its_batch_fails_as_a_whole_and_the_others_are_scored() -> None:
    queries, items = records("q", NOT_FINITE), records("a", "bb")

    scores, _ = scored(((1, (1, 2)), (2, (1, 2))), "query", queries, items, lists=True)

    assert [(row.query_id, row.item_id) for row in scores.rows] == [(1, 1), (1, 2)]
    assert [outcome.subject_id for outcome in scores.outcomes] == ["2 → 1", "2 → 2"]


def test_a_batch_without_a_bad_pair_is_scored_at_once() -> None:
    queries, items = records("q", "qq"), records("a", "bb")

    scores, steps = scored(((1, (1, 2)), (2, (1, 2))), "query", queries, items)

    plain = {(row.query_id, row.item_id): row.plain_margin for row in scores.rows}
    assert plain == {(1, 1): 2, (1, 2): 3, (2, 1): None, (2, 2): None}
    assert (scores.outcomes, steps.n) == ([], 0)
