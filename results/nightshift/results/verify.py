"""The receipt of a run: proof that no result is missing or counted twice."""

from dataclasses import dataclass

from nightshift.schema.states import RunState
from nightshift.stores.ledger import receipts, runs
from nightshift.stores.ledger.receipts import Gap, UnitBalance
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.coverage import Coverage, coverage_of

__all__ = ["Receipt", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The expected and the delivered results of a run, with a digest."""

    run_id: int
    state: RunState
    balances: tuple[UnitBalance, ...]
    #: The first units that have neither a result nor a failure.
    gaps: tuple[Gap, ...]
    #: SHA-256 over the results, see `receipts.result_digest`.
    digest: str
    #: Mean log-odds of the ranked pairs; None without any. Equal runs agree to about 1e-4.
    mean_margin: float | None
    #: Queries with a ranking; None for a run that ranks nothing.
    coverage: Coverage | None
    #: Items of its revision that the index lacked; None for a run that ranks nothing, and where an
    #: earlier release planned it.
    not_indexed: int | None

    @property
    def complete(self) -> bool:
        """True if the run is done and every unit has a result or a reason for its failure."""
        return self.state is RunState.DONE and not any(balance.missing for balance in self.balances)


def verify(database: Database, run_id: int) -> Receipt:
    """Count the results of a run and find missing ones.

    Duplicates cannot occur, because the tables' keys forbid them.

    Raises:
        NotFoundError: If there is no such run.
    """
    with database.begin() as connection:
        run = runs.get_run(connection, run_id)
        balances = receipts.balances(connection, run)
        missing = [
            gap
            for balance in balances
            if balance.missing
            for gap in receipts.gaps(connection, run, balance.unit)
        ]
        digest = receipts.result_digest(connection, run)
        mean_margin = receipts.mean_margin(connection, run)
        coverage = coverage_of(connection, run) if isinstance(run, RerankRun) else None
    return Receipt(
        run_id=run.id,
        state=run.state,
        balances=tuple(balances),
        gaps=tuple(missing),
        digest=digest,
        mean_margin=mean_margin,
        coverage=coverage,
        not_indexed=run.plan.not_indexed if isinstance(run, RerankRun) else None,
    )
