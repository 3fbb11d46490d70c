"""The three kinds of run, each with its own fields, parameters, plan and control state."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import ClassVar

from nightshift.schema.messages import queue_name
from nightshift.schema.params import IndexParams, MethodName, RerankParams, TokenParams
from nightshift.schema.plans import IndexPlan, RerankControl, RerankPlan, TokenPlan
from nightshift.schema.states import RunKind, RunState, Stage

__all__ = ["AnyRun", "BaseRun", "IndexRun", "IndexedRun", "RerankRun", "TokenRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRun:
    """The fields that every run has."""

    kind: ClassVar[RunKind]

    id: int
    state: RunState
    stage: Stage
    catalog_id: int
    #: Name of the catalogue.
    catalog: str
    #: The revision of the catalogue that it reads, and no other.
    revision: int
    #: 0 goes first, 9 last.
    priority: int
    created_at: datetime
    #: None until the run is done, failed or cancelled.
    finished_at: datetime | None

    @property
    def model(self) -> str | None:
        """Fingerprint of the model that the current stage needs; None where it needs none."""
        return self.model_of(self.stage)

    @property
    def queue(self) -> str:
        """The queue of the current stage."""
        return self.queue_of(self.stage)

    def model_of(self, stage: Stage) -> str | None:
        """Fingerprint of the model that a stage needs; None where it needs none."""
        raise NotImplementedError

    def queue_of(self, stage: Stage) -> str:
        """The queue of a stage."""
        return queue_name(stage, self.model_of(stage))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedRun(BaseRun):
    """A run that fills or searches an index version."""

    index_id: int
    index_name: str
    #: Of Milvus.
    collection: str
    #: As the operator named it.
    embedder: str
    embedder_fingerprint: str
    #: Parts of an item that the embedder sees.
    index_parts: str

    def model_of(self, stage: Stage) -> str | None:  # noqa: ARG002 - one model in every stage
        """Fingerprint of the embedder."""
        return self.embedder_fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRun(IndexedRun):
    """A run that embeds items into an index."""

    kind: ClassVar[RunKind] = RunKind.INDEX

    params: IndexParams
    plan: IndexPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRun(IndexedRun):
    """A run that searches an index for a query set and ranks the candidates with a scorer."""

    kind: ClassVar[RunKind] = RunKind.RERANK

    query_set_id: int
    #: Name of the query set.
    query_set: str
    #: The visual tokens that its score jobs read; None where they read pixels.
    token_set_id: int | None
    #: As the operator named it.
    scorer: str
    scorer_fingerprint: str
    #: Its number in `model`, by which `score` is partitioned.
    scorer_number: int
    params: RerankParams
    plan: RerankPlan
    control: RerankControl

    @property
    def method(self) -> MethodName:
        """The re-ranking method."""
        return self.params.scorer.method

    @property
    def score_month(self) -> date:
        """The month of the scores that it computes: that in which it was planned, in UTC."""
        return self.created_at.astimezone(UTC).date().replace(day=1)

    def model_of(self, stage: Stage) -> str | None:
        """Fingerprint of the embedder or the scorer; None for `rank`."""
        if stage is Stage.RANK:
            return None
        if stage in (Stage.EMBED, Stage.SEARCH):
            return self.embedder_fingerprint
        return self.scorer_fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRun(BaseRun):
    """A run that makes visual tokens."""

    kind: ClassVar[RunKind] = RunKind.TOKENS

    #: The set that it fills; None once that was deleted.
    token_set_id: int | None
    #: The vision tower, as the operator named it.
    vision: str
    vision_fingerprint: str
    params: TokenParams
    plan: TokenPlan

    def model_of(self, stage: Stage) -> str | None:  # noqa: ARG002 - one model in every stage
        """Fingerprint of the vision tower."""
        return self.vision_fingerprint


AnyRun = IndexRun | RerankRun | TokenRun
