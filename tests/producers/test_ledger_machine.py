"""Any interleaving of what workers, leaders and an operator do accounts for every item once."""

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import hypothesis
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import text

from nightshift.producers.advance import advance
from nightshift.producers.dispatcher import Dispatcher
from nightshift.producers.retry import retry_failed
from nightshift.results.verify import verify
from nightshift.schema.errors import ConflictError, LeaseLostError
from nightshift.schema.states import RunState, Stage, SubjectKind
from nightshift.stores.broker.broker import Broker
from nightshift.stores.failures import record_failure
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.index.milvus import VectorStore
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.claims import Claim, Ledger
from nightshift.stores.postgres import named_leases
from nightshift.stores.postgres.database import Database
from tests.stores.ledger_helpers import FINGERPRINT, add_index_run, make_due

_ATTEMPTS = 2
_ITEMS = 12
_COLLECTION = "machine_v1"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class LedgerMachine(RuleBasedStateMachine):
    """Two workers, leaders that depose each other, and an operator, at one run of twelve items."""

    database: Database
    dispatcher: Dispatcher
    server: redis.Redis

    @initialize(
        poison=st.sets(st.integers(0, _ITEMS - 1), max_size=2),
        unreadable=st.sets(st.integers(0, _ITEMS - 1), max_size=2),
        may_cancel=st.booleans(),
    )
    def begin(self, poison: set[int], unreadable: set[int], may_cancel: bool) -> None:
        self.server.flushdb()
        with self.database.begin() as connection:
            for table in ("failure", "embedding", "run", "item", "content", '"index"', "model",
                          "catalog", "lease"):  # fmt: skip
                connection.execute(text(f"DELETE FROM {table}"))
        self.run_id = add_index_run(self.database, n_jobs=3, per_job=4)
        with self.database.begin() as connection:
            connection.execute(text('UPDATE "index" SET collection = :c'), {"c": _COLLECTION})
            rows = connection.execute(text("SELECT id, external_id FROM item ORDER BY id")).all()
            self.index_id = connection.execute(text('SELECT id FROM "index"')).scalar_one()
        self.names = {int(row.id): row.external_id for row in rows}
        items = list(self.names)
        #: Whoever has one of these in hand fails.
        self.poison = {items[item_id] for item_id in poison}
        #: These are recorded as failed, and their neighbours are done.
        self.unreadable = {items[item_id] for item_id in unreadable} - self.poison
        self.bad = self.poison | self.unreadable
        self.may_cancel = may_cancel
        self.ledgers = [
            Ledger(self.database, worker_id=name, lease_s=60, max_attempts=_ATTEMPTS)
            for name in ("a", "b")
        ]
        #: Every claim ever made: a zombie may act on an old one at any time.
        self.claims: list[Claim] = []
        #: Fencing tokens of all leaders so far, the present one's last.
        self.tokens: list[int] = []
        #: How often each item was committed as done.
        self.done: Counter[int] = Counter()

    # The workers

    @rule(job=st.integers(1, 12), worker=st.integers(0, 1))
    def deliver(self, job: int, worker: int) -> None:
        """For the first time or again; a message may also be of a job that ended long ago."""
        claim = self.ledgers[worker].claim(self.run_id, job)
        if claim is not None:
            assert self._state() is RunState.RUNNING
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), worker=st.integers(0, 1), looks=st.booleans())
    def work(self, data: st.DataObject, worker: int, looks: bool) -> None:
        """With or without a look at the run between two micro-batches."""
        self._do(data.draw(st.sampled_from(self.claims)), self.ledgers[worker], looks=looks)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        self.ledgers[0].hand_back(data.draw(st.sampled_from(self.claims)), "stopping")

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def miss_the_model(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.ledgers[0].fail_run(claim, "model_error", "no such weights")

    @rule()
    def leases_run_out(self) -> None:
        """Workers crashed, hang or are frozen."""
        with self.database.begin() as connection:
            connection.execute(
                text("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")
            )

    # The leaders

    @rule(candidate=st.sampled_from(["x", "y"]), frozen=st.booleans())
    def elect(self, candidate: str, frozen: bool) -> None:
        """Another candidate wins only where the leader let its lease run out."""
        if frozen:
            with self.database.begin() as connection:
                connection.execute(text("UPDATE lease SET expires_at = '-infinity'"))
        token = named_leases.acquire(self.database, "dispatcher", candidate, 60)
        if token is not None and token not in self.tokens:
            assert token > max(self.tokens, default=0)
            self.tokens.append(token)

    @precondition(lambda self: self.tokens)
    @rule()
    def lead(self) -> None:
        self.dispatcher.tick(self.tokens[-1])
        make_due(self.database, self.run_id)

    @precondition(lambda self: len(self.tokens) > 1)
    @rule(data=st.data())
    def lead_after_being_deposed(self, data: st.DataObject) -> None:
        self._wake_the_deposed(data.draw(st.sampled_from(self.tokens[:-1])))

    def _wake_the_deposed(self, token: int) -> None:
        """A frozen leader wakes in the middle of any of its steps, and changes nothing."""

        def fence(connection) -> None:
            named_leases.confirm(connection, "dispatcher", token)

        before = self._everything()
        with pytest.raises(LeaseLostError):
            self.dispatcher.tick(token)
        for step in (
            lambda: advance(self.database, self.dispatcher.vectors, self.run_id, fence),
            lambda: self.dispatcher._ring(fence),
        ):
            with suppress(LeaseLostError):
                step()
        assert self._everything() == before

    # The operator

    @rule(state=st.sampled_from([RunState.PAUSED, RunState.RUNNING]))
    def pause_or_resume(self, state: RunState) -> None:
        self._ask_for(state)

    @precondition(lambda self: self.may_cancel and len(self.claims) > 2)
    @rule()
    def cancel(self) -> None:
        self._ask_for(RunState.CANCELLED)

    @rule(mend=st.booleans())
    def retry(self, mend: bool) -> None:
        if self._state() not in (RunState.DONE, RunState.FAILED):
            with pytest.raises(ConflictError):
                retry_failed(self.database, self.run_id)
            return
        if mend:
            self.poison, self.unreadable = set(), set()
        retry_failed(self.database, self.run_id)

    @rule()
    def nothing_is_wrong_for_a_while(self) -> None:
        """Every job that waits is done, and the leader sees it."""
        for job in self._waiting():
            self._claim_and_do(job)
        if self.tokens:
            self.lead()

    # What holds

    @invariant()
    def every_item_is_in_exactly_one_job(self) -> None:
        if not hasattr(self, "run_id"):
            return
        with self.database.begin() as connection:
            rows = connection.execute(
                text("SELECT payload FROM job WHERE run_id = :r AND state <> 'split'"),
                {"r": self.run_id},
            )
            held = sorted(item_id for row in rows for item_id in row.payload["ids"])
        assert held == list(self.names)

    def teardown(self) -> None:
        """Let it run to its end: each item is done once, failed with a reason, or was cancelled."""
        if not hasattr(self, "run_id"):
            return
        self.elect("x", frozen=True)
        self.elect("y", frozen=True)
        self._ask_for(RunState.RUNNING)
        if self._state() is RunState.FAILED:
            retry_failed(self.database, self.run_id)
        for _ in range(100):
            self.leases_run_out()
            self._lose_doorbells()
            self._wake_the_deposed(self.tokens[0])
            self.lead()
            rung = self._waiting(rung=True)
            if not rung and self._state() is not RunState.RUNNING:
                break
            for job in rung:
                self._claim_and_do(job)
        self._check_the_receipt()

    def _check_the_receipt(self) -> None:
        receipt = verify(self.database, self.run_id)
        (items,) = receipt.balances
        assert receipt.state in (RunState.DONE, RunState.CANCELLED)
        assert (items.expected, items.missing) == (_ITEMS, 0)
        assert receipt.complete or items.skipped == _ITEMS - items.done - items.failed
        with self.database.begin() as connection:
            done = connection.execute(text("SELECT item_id FROM embedding")).scalars().all()
            failed = {
                row.subject_id: row.reason
                for row in connection.execute(
                    text("SELECT subject_id, reason FROM failure WHERE fatal AND message <> ''")
                )
            }
        assert Counter(done) == self.done, "each is done once, and has its result"
        assert (len(done), len(failed)) == (items.done, items.failed)
        assert not failed.keys() & {self.names[item_id] for item_id in done}
        bad = {self.names[item_id] for item_id in self.bad}
        assert {name for name, reason in failed.items() if reason != "lease_expired"} <= bad

    # How it is done

    def _do(self, claim: Claim, ledger: Ledger, *, looks: bool = True) -> None:
        ids = claim.payload.ids
        try:
            if looks and ledger.renew(claim) is not RunState.RUNNING:
                ledger.hand_back(claim, "paused")
                return
            if self.poison & set(ids):
                ledger.fail_attempt(claim, "poison", "cannot be embedded")
                return
            good = [entry for entry in ids if entry not in self.unreadable]
            with ledger.finish(claim, n_failed=len(ids) - len(good)) as connection:
                write_embeddings(
                    connection,
                    index_id=self.index_id,
                    run_id=self.run_id,
                    keys=[(entry, f"{entry:064x}") for entry in good],
                )
                for entry in self.unreadable & set(ids):
                    record_failure(
                        connection,
                        run_id=self.run_id,
                        stage=Stage.EMBED.value,
                        subject_kind=SubjectKind.ITEM,
                        subject_id=self.names[entry],
                        reason="image_unreadable",
                        message="it ends in the middle",
                    )
            self.done.update(good)
        except LeaseLostError:
            pass

    def _claim_and_do(self, job: int) -> None:
        claim = self.ledgers[0].claim(self.run_id, job)
        if claim is not None:
            self.claims.append(claim)
            self._do(claim, self.ledgers[0])
            make_due(self.database, self.run_id)

    def _ask_for(self, state: RunState) -> None:
        with suppress(ConflictError), self.database.begin() as connection:
            runs.set_run_state(connection, self.run_id, state)

    def _state(self) -> RunState:
        with self.database.begin() as connection:
            return runs.get_run(connection, self.run_id).state

    def _waiting(self, *, rung: bool = False) -> list[int]:
        with self.database.begin() as connection:
            rows = connection.execute(
                text(
                    "SELECT id FROM job WHERE run_id = :r AND state = 'queued' "
                    "AND (sent_at > :lost OR NOT :rung) ORDER BY id"
                ),
                {"r": self.run_id, "rung": rung, "lost": _LONG_AGO},
            )
            return list(rows.scalars())

    def _lose_doorbells(self) -> None:
        self.server.flushdb()
        make_due(self.database, self.run_id)
        with self.database.begin() as connection:
            connection.execute(
                text("UPDATE job SET sent_at = :lost WHERE sent_at IS NOT NULL"),
                {"lost": _LONG_AGO},
            )

    def _everything(self) -> list[object]:
        """All that a leader could change."""
        results: list[object] = [self.dispatcher.broker.waiting(f"embed.{FINGERPRINT}")]
        with self.database.begin() as connection:
            for table in ("run", "job", "failure", '"index"', "lease"):
                rows = connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))
                results += [tuple(row) for row in rows]
        return results


@pytest.fixture
def machine(database_url, redis_url, settings):
    """The machine, on services of the test's own."""
    with (
        Database(database_url) as database,
        VectorStore(settings.milvus_uri, settings.milvus_token.get_secret_value()) as vectors,
        redis.Redis.from_url(redis_url) as server,
    ):
        vectors.create(_COLLECTION, dim=4)
        broker = Broker(redis_url)
        dispatcher = Dispatcher(
            database=database,
            vectors=vectors,
            broker=broker,
            settings=settings.model_copy(update={"max_attempts": _ATTEMPTS}),
        )
        parts = {"database": database, "dispatcher": dispatcher, "server": server}
        yield type("Machine", (LedgerMachine,), parts)
        broker.close()


def test_no_interleaving_loses_an_item_or_does_it_twice(machine):
    machine.TestCase.settings = hypothesis.settings(
        max_examples=12,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase("runTest").runTest()
