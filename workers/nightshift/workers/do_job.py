"""Doing one job: claim it, do its stage, and account for whatever happens."""

import logging
import os
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from nightshift.models.devices import share_cores
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
from nightshift.workers.answer import do_answer
from nightshift.workers.embed import do_embed
from nightshift.workers.progress import HandBackError, Progress
from nightshift.workers.rank import do_rank
from nightshift.workers.score import do_score
from nightshift.workers.search import do_search
from nightshift.workers.session import WorkerSession
from nightshift.workers.stored_tokens import codec_of_index, codec_of_run
from nightshift.workers.tokens import do_codebook, do_tokens

__all__ = ["do_job"]

_log = logging.getLogger(__name__)

#: The ledger makes each claim with the run and payload that its stage has.
_STAGES: dict[Stage, Callable[[WorkerSession, Claim[Any, Any], Progress], None]] = {
    Stage.EMBED: do_embed,
    Stage.SEARCH: do_search,
    Stage.SCORE: do_score,
    Stage.RANK: do_rank,
    Stage.CODEBOOK: do_codebook,
    Stage.TOKENS: do_tokens,
    Stage.ANSWER: do_answer,
}


def do_job(session: WorkerSession, run_id: int, job_id: int) -> None:
    """Answer a doorbell; a second ring, or one of a paused run, is dropped.

    Never raises for a job's own sake: the ledger keeps what happened, and the message is done with.
    """
    try:
        with session.database.begin() as connection:
            run = runs.get_run(connection, run_id)
        if run.state is not RunState.RUNNING:
            return
        model_error = _load(session, run)
        claim = None if session.stopping else session.ledger.claim(run_id, job_id)
        if claim is not None:
            _do_claimed(session, claim, model_error)
    except ServiceUnavailableError as error:
        _log.warning("job %d of run %d stays in the ledger: %s", job_id, run_id, error)
    except NightshiftError as error:
        _log.warning("job %d of run %d: %s", job_id, run_id, error)


def _load(session: WorkerSession, run: AnyRun) -> ModelError | None:
    """Load the weights before the claim, so that a slow load does not eat the lease.

    What a worker loads is known before it begins: a load that ends the process counts too.
    """
    session.watch_files()
    wanted = run.model
    if wanted is None or wanted == session.models.loaded:
        return _use_model(session, run)
    with session.database.begin() as connection:
        ahead = load_reports.load_in_doubt(connection, run.id, wanted)
    if ahead is not None:
        raise HandBackError(f"{ahead} may not survive loading its model: waiting to learn")
    with session.loading(run.id, wanted):
        return _use_model(session, run)


def _use_model(session: WorkerSession, run: AnyRun) -> ModelError | None:
    try:
        spec = _load_model(session, run)
    except ModelError as error:
        return error
    except NightshiftError:
        raise
    except Exception as error:  # noqa: BLE001 - else the job would be offered again for ever
        _log.exception("run %d: its model did not load", run.id)
        _end_if_broken(error)
        return ModelError(f"the model did not load: {type(error).__name__}: {error}")
    if spec and run.model:
        session.note_load(spec, run.model)
    return None


def _load_model(session: WorkerSession, run: AnyRun) -> str | None:
    """Load the model that the current stage of a run needs.

    Returns:
        The model as the operator named it; None where the stage needs none.
    """
    if isinstance(run, TokenRun):
        session.models.vision(run.vision, run.params, run.vision_fingerprint)
        return run.vision
    if isinstance(run, RerankRun) and run.stage is Stage.SCORE:
        codec = codec_of_run(session.database, run)
        session.models.scorer(run.scorer, run.params.scorer, run.scorer_fingerprint, codec)
        return run.scorer
    if isinstance(run, RerankRun) and run.stage is Stage.ANSWER:
        session.models.answerer(run.scorer, run.params.scorer, run.scorer_fingerprint)
        return run.scorer
    if run.stage in (Stage.EMBED, Stage.SEARCH):
        codec = codec_of_index(session.database, run)
        session.models.embedder(run.embedder, run.embedder_fingerprint, codec)
        return run.embedder
    return None


def _do_claimed(session: WorkerSession, claim: AnyClaim, model_error: ModelError | None) -> None:
    session.in_hand = claim
    progress = Progress(session, claim)
    started = monotonic()
    share_cores(session.neighbours)
    try:
        if model_error is not None:
            _model_failed(session, claim, model_error)
            return
        _STAGES[claim.stage](session, claim, progress)
        seconds = max(monotonic() - started, 1e-6)
        session.units_per_s = claim.n_units / seconds
        _log.info(
            "run %d: %s job %d done, %d units in %.1f s",
            claim.run_id,
            claim.stage.value,
            claim.job_id,
            claim.n_units,
            seconds,
        )
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
