"""Counts of a re-ranking run's rankings and scores."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from nightshift.schema.errors import ConflictError, InputError, NightshiftError
from nightshift.schema.result_tables import Candidate
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger.run_types import RerankRun

__all__ = ["Coverage", "coverage_of"]

_ENDINGS = {
    RunState.RUNNING: "the run goes on",
    RunState.PAUSED: "the run is paused",
    RunState.FAILED: "the run failed",
    RunState.CANCELLED: "the run was cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Counts of the queries of a run with and without a ranking."""

    run_id: int
    state: RunState
    stage: Stage
    queries: int
    ranked: int
    #: Queries without a ranking that have a recorded failure.
    failed: int
    #: Pairs with a score, of those that the search found; 0 before it ended.
    pairs_scored: int
    pairs: int

    @property
    def complete(self) -> bool:
        """True if every query has a ranking."""
        return self.ranked >= self.queries

    @property
    def exit_code(self) -> int:
        """Exit code of a command that shows the run: 1 or 7 if an ended run lacks rankings."""
        if self.complete or self.state in (RunState.RUNNING, RunState.PAUSED):
            return 0
        return InputError.exit_code if self.state is RunState.DONE else NightshiftError.exit_code

    def __str__(self) -> str:
        words = f"{self.ranked:,} of {self.queries:,} queries have a ranking"
        if self.failed:
            words += f", {self.failed:,} failed"
        if self.state is not RunState.DONE:
            words += f"; {_ENDINGS[self.state]}"
        if self.state in (RunState.FAILED, RunState.CANCELLED) and not self.complete:
            words += f" in stage {self.stage}"
        if self.pairs_scored and not self.ranked:
            words += (
                f" with {self.pairs_scored:,} of {self.pairs:,} pairs scored, which another "
                "`nightshift rerank` of the same queries reuses"
            )
        return words

    def require_rankings(self) -> None:
        """Refuse a run without rankings.

        Raises:
            ConflictError: Where no query has a ranking.
        """
        if not self.ranked:
            raise ConflictError(f"run {self.run_id} has nothing to show: {self}")


def coverage_of(connection: Connection, run: RerankRun) -> Coverage:
    """Count the rankings and scores of a re-ranking run; one index lookup for each query at most.

    Args:
        connection: Postgres.
        run: A re-ranking run.
    """
    row = connection.execute(_COUNT_QUERIES, {"run": run.id, "queries": run.query_set_id}).one()
    pairs, scored = run.plan.pairs or 0, 0
    if not row.ranked and pairs:
        scored = connection.execute(
            select(func.count(Candidate.score_id)).where(Candidate.run_id == run.id)
        ).scalar_one()
    return Coverage(
        run_id=run.id,
        state=run.state,
        stage=run.stage,
        queries=row.queries,
        ranked=row.ranked,
        failed=row.failed,
        pairs_scored=scored,
        pairs=pairs,
    )


# Counts the queries of a run: all, those with a ranking, and those that failed without one.
_COUNT_QUERIES = text("""
    SELECT (SELECT count(*) FROM query WHERE query_set_id = :queries) AS queries,
        (SELECT count(*) FROM ranking WHERE run_id = :run AND final_rank = 1) AS ranked,
        (SELECT count(*) FROM query q WHERE q.query_set_id = :queries
            AND EXISTS (SELECT FROM failure f WHERE f.run_id = :run AND f.fatal
                AND f.subject_kind = 'query' AND f.subject_id = q.external_id
                AND f.stage IN ('search', 'rank'))
            AND NOT EXISTS (SELECT FROM ranking r WHERE r.run_id = :run
                AND r.query_id = q.id)) AS failed
""")
