"""Which queues a worker serves: those of its loaded weights, until their work is done."""

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.states import Stage
from nightshift.stores import doorbells, runs
from nightshift.stores.runs import RunRow
from nightshift.workers.session import WorkerSession

__all__ = ["choose_queues", "pick"]


def choose_queues(session: WorkerSession) -> set[str] | None:
    """The queues to serve now; None while Postgres is away, to leave things as they are."""
    try:
        with session.database.begin() as connection:
            active = runs.active_runs(connection)
            with_work = doorbells.runs_with_work(connection)
    except ServiceUnavailableError:
        return None
    waiting = [run for run in active if run.id in with_work and run.stage in session.stages]
    return pick(waiting, session.models.loaded)


def pick(waiting: list[RunRow], loaded: str | None) -> set[str]:
    """Queues to serve, given the runs with work, the most urgent first.

    Queues without a model are always served; of the others those of the loaded model, and where
    these are dry, those of the most urgent run's model.
    """
    wanted = {run.queue() for run in waiting if run.stage is Stage.RANK}
    by_model = [(_model(run), run.queue()) for run in waiting if run.stage is not Stage.RANK]
    if by_model:
        models = [model for model, _ in by_model]
        chosen = loaded if loaded in models else models[0]
        wanted |= {queue for model, queue in by_model if model == chosen}
    return wanted


def _model(run: RunRow) -> str:
    return run.queue().partition(".")[2]
