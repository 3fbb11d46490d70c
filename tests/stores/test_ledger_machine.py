"""Any interleaving of deliveries, crashes, late zombies, pauses and failures accounts for all."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import text

from nightshift.schema.errors import ConflictError, LeaseLostError
from nightshift.schema.states import RunState
from nightshift.stores import runs
from nightshift.stores.database import Database
from nightshift.stores.ledger import Claim, Ledger
from nightshift.stores.results_write import write_embeddings
from nightshift.stores.retries import expire_leases
from tests.stores.ledger_helpers import add_index_run, make_due

_ATTEMPTS = 2
_ITEMS = 12


class LedgerMachine(RuleBasedStateMachine):
    """Two workers and an operator at one run of twelve items in three jobs."""

    database: Database

    @initialize(poison=st.sets(st.integers(0, _ITEMS - 1), max_size=2))
    def begin(self, poison: set[int]) -> None:
        with self.database.begin() as connection:
            for table in ("failure", "embedding", "run", "item", '"index"', "model", "catalog"):
                connection.execute(text(f"DELETE FROM {table}"))
        self.run_id = add_index_run(self.database, n_jobs=3, per_job=4)
        with self.database.begin() as connection:
            rows = connection.execute(text("SELECT id FROM item ORDER BY id")).all()
            self.index_id = connection.execute(text('SELECT id FROM "index"')).scalar_one()
        self.items = [int(row.id) for row in rows]
        self.poison = {self.items[one] for one in poison}
        self.ledgers = [
            Ledger(self.database, worker_id=name, lease_s=60, max_attempts=_ATTEMPTS)
            for name in ("a", "b")
        ]
        #: Every claim ever made: a zombie may act on an old one at any time.
        self.claims: list[Claim] = []

    @rule(job=st.integers(1, 9), worker=st.integers(0, 1))
    def deliver(self, job: int, worker: int) -> None:
        claim = self.ledgers[worker].claim(self.run_id, job)
        if claim is not None:
            self.claims.append(claim)

    @rule(data=st.data(), worker=st.integers(0, 1))
    def work(self, data: st.DataObject, worker: int) -> None:
        if self.claims:
            self._do(data.draw(st.sampled_from(self.claims)), self.ledgers[worker])

    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        if self.claims:
            self.ledgers[0].hand_back(data.draw(st.sampled_from(self.claims)), "stopping")

    @rule()
    def leases_run_out(self) -> None:
        with self.database.begin() as connection:
            connection.execute(
                text("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")
            )
            expire_leases(connection, max_attempts=_ATTEMPTS)
        make_due(self.database, self.run_id)

    @rule(state=st.sampled_from([RunState.PAUSED, RunState.RUNNING]))
    def pause_or_resume(self, state: RunState) -> None:
        try:
            with self.database.begin() as connection:
                runs.set_run_state(connection, self.run_id, state)
        except ConflictError:
            pass

    @invariant()
    def every_item_is_in_exactly_one_job(self) -> None:
        if not hasattr(self, "run_id"):
            return
        with self.database.begin() as connection:
            rows = connection.execute(
                text("SELECT payload FROM job WHERE run_id = :r AND state <> 'split'"),
                {"r": self.run_id},
            )
            held = sorted(one for row in rows for one in row.payload["ids"])
        assert held == self.items

    def teardown(self) -> None:
        """Let it run to its end, undisturbed: each item is done once or failed with a reason."""
        if not hasattr(self, "run_id"):
            return
        self.pause_or_resume(RunState.RUNNING)
        for _ in range(200):
            self.leases_run_out()
            with self.database.begin() as connection:
                job = connection.execute(
                    text("SELECT id FROM job WHERE run_id = :r AND state = 'queued' LIMIT 1"),
                    {"r": self.run_id},
                ).scalar()
            if job is None:
                break
            claim = self.ledgers[0].claim(self.run_id, job)
            assert claim is not None
            self._do(claim, self.ledgers[0])
        with self.database.begin() as connection:
            done = connection.execute(text("SELECT item_id FROM embedding")).scalars().all()
            failed = connection.execute(
                text(
                    "SELECT item.id FROM failure JOIN item ON item.external_id = subject_id "
                    "WHERE reason <> 'lease_expired'"
                )
            )
            failed = failed.scalars().all()
            expired = connection.execute(
                text("SELECT count(*) FROM failure WHERE reason = 'lease_expired'")
            ).scalar_one()
        assert set(failed) <= self.poison
        assert not self.poison & set(done)
        assert len(done) + len(failed) + expired == _ITEMS

    def _do(self, claim: Claim, ledger: Ledger) -> None:
        ids = claim.payload["ids"]
        if self.poison & set(ids):
            ledger.fail_attempt(claim, "poison", "cannot be embedded")
            make_due(self.database, self.run_id)
            return
        try:
            with ledger.finish(claim) as connection:
                write_embeddings(
                    connection,
                    index_id=self.index_id,
                    run_id=self.run_id,
                    keys=[(one, f"{one:064x}") for one in ids],
                )
        except LeaseLostError:
            pass


@pytest.mark.usefixtures("stack")
def test_no_interleaving_loses_an_item_or_does_it_twice(database_url):
    with Database(database_url) as database:
        machine = type("Machine", (LedgerMachine,), {"database": database})
        machine.TestCase.settings = settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        machine.TestCase("runTest").runTest()
