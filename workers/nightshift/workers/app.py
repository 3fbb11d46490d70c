"""The Celery application of a worker process: the composition root."""

import logging
import warnings
from collections.abc import Callable
from time import monotonic
from typing import Any

from celery import Celery, bootsteps, signals
from celery.exceptions import SecurityWarning
from celery.worker.consumer import Consumer

from nightshift.schema.settings import Settings
from nightshift.schema.states import Stage
from nightshift.stores.broker.broker import TASK_NAME, make_celery
from nightshift.workers.consumer import PatientConsumer
from nightshift.workers.do_job import do_job
from nightshift.workers.queues import choose_queues
from nightshift.workers.session import WorkerSession, open_session
from nightshift.workers.stopping import GracefulStop

__all__ = ["make_app", "run_worker"]

_log = logging.getLogger(__name__)

JobFunction = Callable[[WorkerSession, int, int], None]

_IDLE_QUEUE = "idle"
_CHOOSE_EVERY_S = 0.5
#: A worker that goes from job to job asks the ledger no more often.
_CHOOSE_IN_WORK_S = 3.0


def run_worker(
    settings: Settings, *, stages: frozenset[Stage], device: str, job_function: JobFunction = do_job
) -> int:
    """Work in the foreground until stopped.

    The pool is `solo`: the one process that initialises CUDA is the one that uses it.

    Args:
        settings: Addresses and limits.
        stages: The stages whose jobs this worker does.
        device: Where models compute.
        job_function: Does one job, given the session, the run and the job.

    Returns:
        The exit code.
    """
    # Celery warns root of pickled messages; ours are JSON, and nothing else is accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    session = open_session(settings, stages=stages, device=device)
    app = make_app(session, job_function)
    session.start_reporting()
    stop = GracefulStop(session)
    signals.worker_shutting_down.connect(stop.ask, weak=False)
    try:
        worker = app.Worker(
            pool="solo",
            consumer_cls=PatientConsumer,
            concurrency=1,
            hostname=f"{session.worker_id}@nightshift",
            queues=[_IDLE_QUEUE],
            loglevel=settings.log_level,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        session.close()


def make_app(session: WorkerSession, job_function: JobFunction = do_job) -> Celery:
    """The application with its one task and the step that chooses queues."""
    app = make_celery(session.redis_url)

    def answer(run_id: int, job_id: int) -> None:
        job_function(session, run_id, job_id)

    app.task(name=TASK_NAME)(answer)

    class ChooseQueues(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery is untyped
        """Follows the ledger: the queues of loaded weights first, others when those are dry."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, parent: Consumer, **options: Any) -> None:  # noqa: ANN401 - Celery's
            super().__init__(parent, **options)
            self._timer: Any = None

        def start(self, parent: Consumer) -> None:
            self._timer = parent.timer.call_repeatedly(
                _CHOOSE_EVERY_S, follow_ledger, (session, parent)
            )

        def stop(self, parent: Consumer) -> None:  # noqa: ARG002 - Celery's signature
            if self._timer is not None:  # else Redis refused a step before this one
                self._timer.cancel()

    app.steps["consumer"].add(ChooseQueues)
    signals.setup_logging.connect(_keep_our_logging, weak=False)
    return app


def follow_ledger(session: WorkerSession, consumer: Consumer) -> None:
    """Subscribe to the queues that this worker should serve now."""
    now = monotonic()
    in_work = now - session.last_step < _CHOOSE_EVERY_S / 2
    if in_work and now - session.chosen_at < _CHOOSE_IN_WORK_S:
        return
    session.chosen_at = now
    wanted = choose_queues(session)
    if wanted is None or consumer.task_consumer is None:
        return
    present = {queue.name for queue in consumer.task_consumer.queues}
    for queue in wanted - present:
        consumer.add_task_queue(queue)
    for queue in present - wanted - {_IDLE_QUEUE}:
        consumer.cancel_task_queue(queue)


def _keep_our_logging(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
    """Connected so that Celery leaves the log configuration of the command line alone."""
