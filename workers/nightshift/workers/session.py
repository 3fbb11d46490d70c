"""One worker process: its connections, its model, and its reports to the ledger."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import Connection

from nightshift.schema.errors import ModelError, ServiceUnavailableError
from nightshift.schema.settings import Settings
from nightshift.schema.states import Stage
from nightshift.stack import resolve_urls
from nightshift.stores.ledger import load_reports, workers
from nightshift.stores.ledger.claims import AnyClaim, Ledger
from nightshift.stores.ledger.run_types import AnyRun
from nightshift.stores.postgres.database import Database
from nightshift.stores.results import model_loads

if TYPE_CHECKING:  # a worker imports what its jobs need
    from nightshift.models.cache import ModelCache
    from nightshift.models.checkpoints.snapshot import Snapshot
    from nightshift.stores.index.milvus import VectorStore

__all__ = ["WorkerSession", "open_session"]

_log = logging.getLogger(__name__)

_REPORT_EVERY_S = 4.0
#: Longest transaction of a worker: all work is done before it begins.
_TRANSACTION_S = 60.0
#: Longest outage of Milvus that a job waits out; it is handed back before its lease is gone.
_PATIENCE_S = 60.0

_CHANGED = (
    "{} changed while its model was in memory, and weights may be read from the file as they are "
    "needed: nothing of this job is kept, and the model is loaded again. Write a model's files "
    "into a new directory, never over those in use"
)


@dataclass(slots=True, kw_only=True)
class WorkerSession:
    """Everything that the tasks of one process share."""

    worker_id: str
    stages: frozenset[Stage]
    settings: Settings
    redis_url: str
    database: Database
    ledger: Ledger
    milvus_uri: str
    milvus_token: str
    #: As requested: where models compute.
    wanted_device: str
    #: The job in hand, for the others to see.
    in_hand: AnyClaim | None = None
    units_per_s: float | None = None
    #: The run of the last job, and when it was read, by `monotonic`.
    known_run: tuple[AnyRun | None, float] = (None, 0.0)
    #: When the queues were last chosen, by `monotonic`.
    chosen_at: float = 0.0
    #: Set by a signal to stop: no other job is begun.
    stopping: bool = False
    #: When a micro-batch last ended, by `monotonic`.
    last_step: float = field(default_factory=monotonic)
    #: Workers alive on this machine, this one among them.
    neighbours: int = 1
    #: The number of the load of the weights in memory, if anything was loaded.
    load_id: int | None = None
    #: Opened when first used, as are the weights.
    _vectors: "VectorStore | None" = None
    _models: "ModelCache | None" = None
    #: The files of that load.
    _noted: "Snapshot | None" = None
    #: Run and fingerprint of the model that is being loaded.
    _loading: tuple[int, str] | None = None
    _closing: Event = field(default_factory=Event)
    #: Of two reports the later one must be written last.
    _reporting: Lock = field(default_factory=Lock)

    @property
    def vectors(self) -> "VectorStore":
        """Milvus."""
        if self._vectors is None:
            from nightshift.stores.index.milvus import VectorStore

            patience_s = min(_PATIENCE_S, self.settings.lease_s / 3)
            self._vectors = VectorStore(self.milvus_uri, self.milvus_token, patience_s=patience_s)
        return self._vectors

    @property
    def models(self) -> "ModelCache":
        """The weights in memory."""
        if self._models is None:
            from nightshift.models.cache import ModelCache

            self._models = ModelCache(device=self.wanted_device, compiled=self.settings.compile)
        return self._models

    @property
    def loaded(self) -> str | None:
        """Fingerprint of the model that was used last; None before any was."""
        return self._models.loaded if self._models else None

    @property
    def device(self) -> str:
        """Where models compute: as requested, until the first load picks a device."""
        return self._models.device if self._models else self.wanted_device

    def start_reporting(self) -> None:
        """Register, then report from a thread of its own, so that a long forward looks alive."""
        with self.database.begin() as connection:
            workers.register(
                connection,
                worker_id=self.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                device=self.device,
                stages=",".join(sorted(self.stages)),
            )
            self.neighbours = workers.count_neighbours(connection, socket.gethostname())
        Thread(target=self._report_until_closed, name="report", daemon=True).start()

    @contextmanager
    def loading(self, run_id: int, fingerprint: str) -> Iterator[None]:
        """Load a model inside: the others know of it before it begins, and when it is over.

        Raises:
            ServiceUnavailableError: When Postgres is away.
        """
        self._loading = (run_id, fingerprint)
        try:
            self._report()
            yield
        finally:
            self._loading = None
            self._report()
        if self.loaded == fingerprint:
            with self.database.begin() as connection:
                load_reports.forget_lost_loads(connection, fingerprint)

    def watch_files(self) -> None:
        """Forget weights in memory whose files have changed, and note that; before each job."""
        if changed := self._changed_file():
            _log.warning("%s changed since it was loaded: the model is loaded again", changed)
            self._note_change(changed)

    def note_load(self, spec: str, fingerprint: str) -> None:
        """Give the weights in memory a number, once, by which results name them."""
        files = self._models.files if self._models else None
        if files is not None and files is not self._noted:
            with self.database.begin() as connection:
                self.load_id = model_loads.record_load(
                    connection,
                    worker_id=self.worker_id,
                    spec=spec,
                    fingerprint=fingerprint,
                    files=[asdict(file) for file in files.files],
                )
            self._noted = files

    @contextmanager
    def finish(self, claim: AnyClaim, *, n_failed: int = 0) -> Iterator[Connection]:
        """`Ledger.finish` for what a model computed; looks at its files right before the commit.

        Raises:
            LeaseLostError: As `Ledger.finish`.
            ModelError: A file of the model has changed since it was loaded, or what comes of this
                load was dropped: nothing is kept, and the model is forgotten.
        """
        changed = None
        try:
            with self.ledger.finish(claim, n_failed=n_failed) as connection:
                self._refuse_dropped(connection)
                yield connection
                changed = self._changed_file()
                if changed:
                    raise ModelError(_CHANGED.format(changed))
        finally:
            if changed:
                self._note_change(changed)

    def refuse_changed(self) -> None:
        """Look at the model's files before something is written that no transaction takes back.

        Raises:
            ModelError: As `finish`.
        """
        if changed := self._changed_file():
            self._note_change(changed)
            raise ModelError(_CHANGED.format(changed))

    def _refuse_dropped(self, connection: Connection) -> None:
        try:
            model_loads.refuse_dropped(connection, self.load_id)
        except ModelError:
            self.models.drop()
            self.load_id = None
            raise

    def _changed_file(self) -> str | None:
        return self._models.drop_if_changed() if self._models else None

    def _note_change(self, file: str) -> None:
        if self.load_id is not None:
            with self.database.begin() as connection:
                model_loads.record_change(connection, self.load_id, file)
        self.load_id = None

    def close(self) -> None:
        """Mark the worker as stopped and close its connections."""
        self._closing.set()
        try:
            self.retire()
        except ServiceUnavailableError as error:
            _log.warning("could not mark this worker as stopped: %s", error)
        if self._vectors is not None:
            self._vectors.close()
        self.database.close()

    def retire(self) -> None:
        """Note that this worker stopped in an orderly way.

        Raises:
            ServiceUnavailableError: When Postgres is away.
        """
        with self.database.begin() as connection:
            workers.retire(connection, self.worker_id)

    def _report_until_closed(self) -> None:
        while not self._closing.wait(_REPORT_EVERY_S):
            claim = self.in_hand
            if claim and monotonic() - self.last_step > self.settings.hang_s:
                # Nothing gentler ends a forward that hangs; the ledger takes the job back.
                _log.critical("job %d of run %d hangs; ending", claim.job_id, claim.run_id)
                os._exit(70)
            try:
                self._report()
            except ServiceUnavailableError as error:
                _log.warning("could not report: %s", error)
            except Exception:  # noqa: BLE001 - without reports it would count as dead
                _log.exception("could not report")

    def _report(self) -> None:
        with self._reporting, self.database.begin() as connection:
            claim = self.in_hand
            loads_for, loading = self._loading or (None, None)
            facts = {
                "device": self.device,
                "model": self.loaded,
                "loading": loading,
                "run_id": claim.run_id if claim else loads_for,
                "job_id": claim.job_id if claim else None,
                "units_per_s": self.units_per_s,
            }
            workers.report(connection, self.worker_id, facts)
            self.neighbours = workers.count_neighbours(connection, socket.gethostname())


def open_session(settings: Settings, *, stages: frozenset[Stage], device: str) -> WorkerSession:
    """Connect to the services; loads no model yet and does not touch CUDA."""
    urls = resolve_urls(settings)
    database = Database(
        urls.database_url,
        application="nightshift worker",
        transaction_s=_TRANSACTION_S,
        one_connection=True,
    )
    worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    return WorkerSession(
        worker_id=worker_id,
        stages=stages,
        settings=settings,
        redis_url=urls.redis_url,
        database=database,
        ledger=Ledger(
            database,
            worker_id=worker_id,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
        ),
        milvus_uri=urls.milvus_uri,
        milvus_token=urls.milvus_token,
        wanted_device=device,
    )
