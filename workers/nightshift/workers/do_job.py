"""Do one job: load its model, claim it, run its stage, and record the end, good or bad."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, cast

from nightshift.schema.errors import (
    LeaseLostError,
    ModelError,
    NightshiftError,
    ServiceUnavailableError,
)
from nightshift.schema.states import RunState, Stage
from nightshift.stores.ledger import load_reports, runs
from nightshift.stores.ledger.claims import AnyClaim, Claim
from nightshift.stores.ledger.run_types import AnyRun, RerankRun, TokenRun
from nightshift.workers.lease_renewal import HandBackError, Progress
from nightshift.workers.session import WorkerSession

if TYPE_CHECKING:
    from nightshift.models.answer import Answerer
    from nightshift.models.embedders.protocol import Embedder
    from nightshift.models.scorers.protocol import Scorer
    from nightshift.models.vision import VisionTower

__all__ = ["STAGE_FUNCTIONS", "LoadedModel", "do_claimed", "do_job", "import_stages"]

_log = logging.getLogger(__name__)

#: So long a worker relies on what it has read of a run, for jobs of one stage.
_KNOWN_S = 3.0

StageFunction = Callable[[WorkerSession, Claim[Any, Any], Progress, Any], None]

#: Module and function of each stage. A module is imported when a job needs it: most load torch.
_FUNCTIONS: Mapping[Stage, tuple[str, str]] = {
    Stage.EMBED: ("nightshift.workers.embed", "do_embed"),
    Stage.SEARCH: ("nightshift.workers.search", "do_search"),
    Stage.SCORE: ("nightshift.workers.score", "do_score"),
    Stage.RANK: ("nightshift.workers.rank", "do_rank"),
    Stage.CODEBOOK: ("nightshift.workers.tokens", "do_codebook"),
    Stage.TOKENS: ("nightshift.workers.tokens", "do_tokens"),
    Stage.ANSWER: ("nightshift.workers.answer", "do_answer"),
}


def _do_stage(
    stage: Stage, session: WorkerSession, claim: Claim[Any, Any], progress: Progress, model: object
) -> None:
    module, name = _FUNCTIONS[stage]
    function: StageFunction = getattr(import_module(module), name)
    function(session, claim, progress, model)


#: The ledger makes each claim with the run and payload that its stage has, and `_load_model` gives
#: the model; None for `rank`, which needs none.
STAGE_FUNCTIONS: Mapping[Stage, StageFunction] = {
    stage: partial(_do_stage, stage) for stage in _FUNCTIONS
}


def import_stages(stages: Iterable[Stage]) -> None:
    """Import what the jobs of some stages need, before the first of them is there."""
    for stage in stages:
        import_module(_FUNCTIONS[stage][0])
    if set(stages) - {Stage.RANK}:
        import_module("nightshift.models.cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """The model of one stage of a run, ready for use."""

    stage: Stage
    #: As the operator named it; None where the stage needs no model.
    spec: str | None = None
    model: "Embedder | Scorer | VisionTower | Answerer | None" = None


def _load_and_report(session: WorkerSession, run: AnyRun) -> LoadedModel | ModelError:
    """Load the weights before the claim, so that a slow load does not eat the lease.

    The load is reported before it begins, so a load that ends the process counts too.
    """
    session.watch_files()
    wanted = run.model
    if wanted is None or wanted == session.loaded:
        return _use_model(session, run)
    with session.database.begin() as connection:
        ahead = load_reports.load_in_doubt(connection, run.id, wanted)
    if ahead is not None:
        raise HandBackError(f"{ahead} may not survive loading its model: waiting to learn")
    with session.loading(run.id, wanted):
        return _use_model(session, run)


def do_job(
    session: WorkerSession,
    run_id: int,
    job_id: int,
    *,
    stage_functions: Mapping[Stage, StageFunction] = STAGE_FUNCTIONS,
    load_model: Callable[[WorkerSession, AnyRun], LoadedModel | ModelError] = _load_and_report,
) -> None:
    """Answer a doorbell; a second ring, or one of a paused run, is dropped.

    Never raises for a job's own sake: the ledger keeps what happened, and the message is done with.

    Args:
        session: What the jobs of this process share.
        run_id: The run of the job.
        job_id: The number of the job in its run.
        stage_functions: The function that does the jobs of each stage.
        load_model: Loads the model of a run before the claim.
    """
    try:
        claim, known = None, _known_run(session, run_id)
        if known is not None:
            loaded = load_model(session, known)
            claim = None if session.stopping else session.ledger.claim(run_id, job_id, known)
        if claim is None:
            run = _read_run(session, run_id)
            if run.state is not RunState.RUNNING:
                return
            loaded = load_model(session, run)
            claim = None if session.stopping else session.ledger.claim(run_id, job_id)
        if claim is not None:
            do_claimed(session, claim, loaded, stage_functions)
    except ServiceUnavailableError as error:
        _log.warning("job %d of run %d stays in the ledger: %s", job_id, run_id, error)
    except NightshiftError as error:
        _log.warning("job %d of run %d: %s", job_id, run_id, error)


def _known_run(session: WorkerSession, run_id: int) -> AnyRun | None:
    """The run as it was when an earlier job began, if that was lately; the claim checks it."""
    run, read_at = session.known_run
    return run if run and run.id == run_id and monotonic() - read_at < _KNOWN_S else None


def _read_run(session: WorkerSession, run_id: int) -> AnyRun:
    with session.database.begin() as connection:
        run = runs.get_run(connection, run_id)
    session.known_run = (run if run.state is RunState.RUNNING else None), monotonic()
    return run


def _use_model(session: WorkerSession, run: AnyRun) -> LoadedModel | ModelError:
    try:
        loaded = _load_model(session, run, run.stage)
    except ModelError as error:
        return error
    except NightshiftError:
        raise
    except Exception as error:  # noqa: BLE001 - else the job would be offered again for ever
        _log.exception("run %d: its model did not load", run.id)
        _end_if_broken(error)
        return ModelError(f"the model did not load: {type(error).__name__}: {error}")
    if loaded.model is not None:
        from nightshift.models.devices import share_cores

        share_cores(session.neighbours)
    if loaded.spec and run.model:
        session.note_load(loaded.spec, run.model)
    return loaded


def _load_model(session: WorkerSession, run: AnyRun, stage: Stage) -> LoadedModel:
    """Load the model that a stage of a run needs; ModelError if it cannot be loaded."""
    if stage is Stage.RANK:
        return LoadedModel(stage=stage)
    from nightshift.workers import stored_tokens

    if isinstance(run, TokenRun):
        tower = session.models.vision(run.vision, run.params, run.vision_fingerprint)
        return LoadedModel(stage=stage, spec=run.vision, model=tower)
    if isinstance(run, RerankRun) and stage is Stage.SCORE:
        codec = stored_tokens.codec_of_run(session.database, run)
        scorer = session.models.scorer(run.scorer, run.params.scorer, run.scorer_fingerprint, codec)
        return LoadedModel(stage=stage, spec=run.scorer, model=scorer)
    if isinstance(run, RerankRun) and stage is Stage.ANSWER:
        answerer = session.models.answerer(run.scorer, run.params.scorer, run.scorer_fingerprint)
        return LoadedModel(stage=stage, spec=run.scorer, model=answerer)
    if stage in (Stage.EMBED, Stage.SEARCH):
        codec = stored_tokens.codec_of_index(session.database, run)
        embedder = session.models.embedder(run.embedder, run.embedder_fingerprint, codec)
        return LoadedModel(stage=stage, spec=run.embedder, model=embedder)
    return LoadedModel(stage=stage)


def do_claimed(
    session: WorkerSession,
    claim: AnyClaim,
    loaded: LoadedModel | ModelError,
    stage_functions: Mapping[Stage, StageFunction] = STAGE_FUNCTIONS,
) -> None:
    """Run the stage of a claimed job, and record its end in the ledger."""
    session.in_hand = claim
    progress = Progress(session, claim)
    started = monotonic()
    try:
        if isinstance(loaded, ModelError):
            _model_failed(session, claim, loaded)
            return
        if loaded.stage is not claim.stage:  # the run went on between the load and the claim
            loaded = _load_model(session, cast("AnyRun", claim.run), claim.stage)
        stage_functions[claim.stage](session, claim, progress, loaded.model)
        seconds = max(monotonic() - started, 1e-6)
        session.units_per_s = claim.n_units / seconds
        _log.info(
            "run %d: %s job %d done, %d units in %.1f s",
            claim.run_id, claim.stage.value, claim.job_id, claim.n_units, seconds,
        )  # fmt: skip
    except (HandBackError, ServiceUnavailableError) as error:
        _log.info("run %d: job %d handed back: %s", claim.run_id, claim.job_id, error)
        # Those who wait for a lease see others finish, and are at no fault.
        outage = isinstance(error, ServiceUnavailableError) and error.service != "lease"
        _hand_back(session, claim, str(error), outage=outage)
    except LeaseLostError as error:
        _log.warning("%s", error)
        if error.job_id == 0:  # a named lease: the job itself is still in these hands
            _hand_back(session, claim, str(error))
    except ModelError as error:
        _model_failed(session, claim, error)
    except NightshiftError as error:
        session.ledger.fail_attempt(claim, getattr(error, "reason", "") or "error", str(error))
    except Exception as error:  # noqa: BLE001 - whatever it was, it is this job's and is recorded
        _log.exception("job %d of run %d failed", claim.job_id, claim.run_id)
        session.ledger.fail_attempt(claim, type(error).__name__, str(error))
        _end_if_broken(error)
    finally:
        session.in_hand = None


def _end_if_broken(error: Exception) -> None:
    """Such an error sticks to the process: every later load and forward would fail as well."""
    if "CUDA error" in str(error) and "out of memory" not in str(error):
        _log.critical("the GPU's context is broken; ending")
        os._exit(70)


def _hand_back(
    session: WorkerSession, claim: AnyClaim, reason: str, *, outage: bool = False
) -> None:
    """Give the job and its attempt back, also where Postgres is what went away."""
    deadline = monotonic() + session.settings.lease_s
    ledger = session.ledger
    while True:
        try:
            (ledger.hand_back_from_outage if outage else ledger.hand_back)(claim, reason)
        except ServiceUnavailableError:
            if monotonic() > deadline:
                raise
            sleep(0.2)
        else:
            return


def _model_failed(session: WorkerSession, claim: AnyClaim, error: ModelError) -> None:
    """No smaller job would fare better without the model: after its attempts the run fails."""
    if claim.attempt < session.settings.max_attempts:
        session.ledger.fail_attempt(claim, "model_error", str(error))
    else:
        session.ledger.fail_run(claim, "model_error", str(error))
