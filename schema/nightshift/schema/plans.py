"""Plans and control state of runs: the counts that planning found, and what the dispatcher did."""

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["IndexPlan", "RerankControl", "RerankPlan", "RunPlan", "TokenPlan"]


class RunPlan(BaseModel):
    """Base of the counts in `run.plan`; keys that an earlier release wrote are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """The counts that are known, as kept in `run.plan` and shown by `nightshift run show`."""
        return self.model_dump(mode="json", exclude_none=True)


class IndexPlan(RunPlan):
    """Counts of an index run."""

    #: Items to embed.
    items: int = 0
    #: Items that left the catalogue, whose vectors were dropped.
    gone: int = 0


class TokenPlan(RunPlan):
    """Counts of a run that makes visual tokens."""

    #: Items whose images are encoded.
    items: int = 0


class RerankPlan(RunPlan):
    """Counts of a re-ranking run; those of its pairs are None until the search is done."""

    queries: int = 0
    #: Items of the revision that lack a vector, without a failure that says why: no search finds
    #: them. None where an earlier release planned the run.
    not_indexed: int | None = None
    #: Those that the run embeds before it searches.
    to_embed: int | None = None
    #: Candidates of all queries.
    pairs: int | None = None
    #: Pairs with a score of an earlier run.
    reused: int | None = None
    #: Pairs without anything that the scorer could see.
    unscorable: int | None = None
    #: Pairs of contents that another pair has too: they get its score.
    equal: int | None = None
    #: Pairs that are given to the scorer.
    to_score: int | None = None
    #: Shared prefixes of these pairs.
    groups: int | None = None
    #: Pairs that the scorer was asked about once more, because their scores tie.
    tied: int | None = None


class RerankControl(BaseModel):
    """State of a re-ranking run that the dispatcher decides by; `retry-failed` resets it.

    Each field is a column of table `run`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Vectors were lost while the run searched: the search is repeated.
    search_again: bool = False
    #: How often lost vectors were embedded again.
    embed_rounds: int = 0
    #: How often another of several equal pairs was given to the scorer.
    equal_rounds: int = 0
    #: The scorer was asked about pairs that tie.
    ties_asked: bool = False
    #: While the score stage is planned: the last query whose pairs are prepared, 0 for none. None
    #: while no planner is at work.
    planned_query: int | None = None
    #: Pairs that have score jobs already, while the stage is planned.
    planned_pairs: int = 0

    @property
    def is_planning(self) -> bool:
        """True while the score stage is planned, in many transactions."""
        return self.planned_query is not None

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)
