"""The states of things, one enum each; the ledger's diagram is in docs/architecture.md."""

from enum import StrEnum

__all__ = [
    "DecidedBy",
    "IndexState",
    "JobState",
    "RunKind",
    "RunState",
    "Stage",
    "SubjectKind",
    "TallyName",
]


class IndexState(StrEnum):
    """One version of an index."""

    #: Embed jobs are planned or running.
    BUILDING = "building"
    #: Every live item has a vector or a recorded failure.
    READY = "ready"
    #: Superseded by a newer version, or dropped.
    RETIRED = "retired"


class RunKind(StrEnum):
    """The kinds of run."""

    INDEX = "index"
    RERANK = "rerank"
    TOKENS = "tokens"


class RunState(StrEnum):
    """A run's life; `paused` goes back to `running`, the last three are final."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    """The stages of a run: an index run has `embed` alone, a rerank run the first four.

    A rerank run that is done can be asked to `answer` its queries.
    A token run trains a `codebook` where its codec has one, then makes `tokens`.
    """

    EMBED = "embed"
    SEARCH = "search"
    SCORE = "score"
    RANK = "rank"
    CODEBOOK = "codebook"
    TOKENS = "tokens"
    ANSWER = "answer"


class JobState(StrEnum):
    """A job's life: queued → running → done, failed or split into two; back to queued on retry."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    #: Other jobs carry its work: its two halves, or those of a run that was taken up again.
    SPLIT = "split"


class SubjectKind(StrEnum):
    """The kinds of thing that a failure is about."""

    LINE = "line"
    ITEM = "item"
    QUERY = "query"
    PAIR = "pair"
    JOB = "job"


class DecidedBy(StrEnum):
    """The rule that gave a candidate its place."""

    SCORE = "score"
    ENTROPY = "entropy"
    COARSE = "coarse"


class TallyName(StrEnum):
    """Quantities that jobs measure of their own work."""

    #: Pairs that a model read.
    PAIRS = "pairs"
    #: Beginnings of prompts that it read for them, each as often as it was read.
    PREFIXES = "prefixes"
    #: Images that went through the vision tower.
    PICTURES = "pictures"
    #: Vectors that were made.
    VECTORS = "vectors"
    #: Summed over them: the share of its squared length in a vector's five largest dimensions.
    TOP_SHARE = "top_share"
