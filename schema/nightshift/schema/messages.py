"""Payloads of jobs, and the body of a message: JSON in the ledger and in Redis, typed here."""

from collections.abc import Mapping
from typing import Any, Literal

from nightshift.schema.params import Frozen
from nightshift.schema.states import Stage

__all__ = [
    "BlockPayload",
    "MessageBody",
    "Payload",
    "ScorePayload",
    "parse_payload",
    "queue_name",
]


class BlockPayload(Frozen):
    """A job of any stage but score: a block of item ids or query ids."""

    ids: tuple[int, ...]

    @property
    def n_units(self) -> int:
        """Items or queries."""
        return len(self.ids)


class ScorePayload(Frozen):
    """A score job: groups of pairs that share one side of their prompt."""

    #: Whose content comes first in the prompt and is shared by a group.
    shared_side: Literal["query", "candidate"]
    #: (id on the shared side, ids on the other side), in planning order.
    groups: tuple[tuple[int, tuple[int, ...]], ...]
    #: Whether a group is a list, asked about as a whole and in its order.
    lists: bool = False
    #: `ties` asks once more about scored pairs, for the entropies that break their ties.
    asks: Literal["score", "ties"] = "score"

    @property
    def n_units(self) -> int:
        """Pairs."""
        return sum(len(others) for _, others in self.groups)

    def pairs(self) -> list[tuple[int, int]]:
        """(query id, item id) of every pair, in group order."""
        if self.shared_side == "query":
            return [(shared, other) for shared, others in self.groups for other in others]
        return [(other, shared) for shared, others in self.groups for other in others]


Payload = BlockPayload | ScorePayload


class MessageBody(Frozen):
    """The content of a message in Redis: the job that it is about."""

    run_id: int
    job_id: int


def parse_payload(stage: Stage, payload: Mapping[str, Any]) -> Payload:
    """The payload of a job, as its stage has it."""
    model = ScorePayload if stage is Stage.SCORE else BlockPayload
    return model.model_validate(payload)


def queue_name(stage: str, model_fingerprint: str | None) -> str:
    """Celery queue of a stage; a queue per model keeps a worker with the weights it has loaded."""
    return f"{stage}.{model_fingerprint}" if model_fingerprint else stage
