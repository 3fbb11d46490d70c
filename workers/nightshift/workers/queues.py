"""Which queues a worker serves: those of its loaded weights, until their work is done."""

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stores.ledger import jobs, runs
from nightshift.stores.ledger.run_types import AnyRun
from nightshift.workers.session import WorkerSession

__all__ = ["choose_queues", "pick"]


def choose_queues(session: WorkerSession) -> set[str] | None:
    """The queues to serve now; None while Postgres is away, to leave things as they are."""
    try:
        with session.database.begin() as connection:
            active = runs.active_runs(connection)
            waiting = [
                run
                for run in active
                if run.stage in session.stages and jobs.has_work(connection, run.id)
            ]
    except ServiceUnavailableError:
        return None
    return pick(waiting, session.loaded)


def pick(waiting: list[AnyRun], loaded: str | None) -> set[str]:
    """Queues to serve, given the runs with work, the most urgent first.

    Queues without a model are always served; of the others those of one model. The loaded one stays
    until its work is dry, so that runs of equal priority do not make workers swap job by job; only
    a run more urgent than all of its runs is worth a swap.
    """
    wanted = {run.queue for run in waiting if run.model is None}
    with_model = [run for run in waiting if run.model is not None]
    if with_model:
        urgent = [run for run in with_model if run.priority == with_model[0].priority]
        models = [run.model for run in urgent]
        chosen = loaded if loaded in models else models[0]
        wanted |= {run.queue for run in with_model if run.model == chosen}
    return wanted
