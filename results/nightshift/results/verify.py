"""The receipt of a run: proof that nothing was lost and nothing counted twice."""

from dataclasses import dataclass

from nightshift.schema.states import RunKind, RunState
from nightshift.stores.ledger import receipts, runs
from nightshift.stores.ledger.receipts import Gap, Tally
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.coverage import Coverage, coverage_of

__all__ = ["Receipt", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a run owed and what it delivered."""

    run_id: int
    state: RunState
    tallies: tuple[Tally, ...]
    #: The first units that have neither result nor failure.
    gaps: tuple[Gap, ...]
    #: SHA-256 over the results, as `receipts.result_digest` says.
    digest: str
    #: Log-odds of the ranked pairs; None where there are none. Equal to about 1e-4 in equal runs.
    mean_margin: float | None
    #: How many queries have a ranking; None for a run that ranks nothing.
    coverage: Coverage | None

    @property
    def complete(self) -> bool:
        """Whether the run is done and every unit has its result or its reason."""
        return self.state is RunState.DONE and not any(tally.missing for tally in self.tallies)


def verify(database: Database, run_id: int) -> Receipt:
    """Count a run's books.

    Duplicates cannot occur: keys of the tables forbid them. What can go wrong is a loss, and that
    is what this finds.

    Raises:
        NotFoundError: Where there is no such run.
    """
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        tallies = receipts.tally(connection, run)
        missing = [
            gap
            for tally in tallies
            if tally.missing
            for gap in receipts.gaps(connection, run, tally.unit)
        ]
        digest = receipts.result_digest(connection, run)
        mean_margin = receipts.mean_margin(connection, run)
        covered = coverage_of(connection, run) if run.kind is RunKind.RERANK else None
    return Receipt(
        run_id=run.id,
        state=run.state,
        tallies=tuple(tallies),
        gaps=tuple(missing),
        digest=digest,
        mean_margin=mean_margin,
        coverage=covered,
    )
