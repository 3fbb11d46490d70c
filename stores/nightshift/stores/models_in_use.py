"""Which models are waited for: by runs that are not done, and by indexes that searches use."""

from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import Connection

from nightshift.schema.models import ModelInUse
from nightshift.schema.runs import RunParams, TokenParams
from nightshift.schema.states import RunKind, Stage
from nightshift.stores import indexes, runs
from nightshift.stores.runs import RunRow

__all__ = ["models_in_use"]


def models_in_use(connection: Connection) -> list[ModelInUse]:
    """Each model once with all its users, those that a run waits for first."""
    found: dict[str, ModelInUse] = {}
    for model in _all(connection):
        known = found.get(model.fingerprint)
        found[model.fingerprint] = (
            model if known is None else replace(known, used_by=(*known.used_by, *model.used_by))
        )
    return list(found.values())


def _all(connection: Connection) -> Iterator[ModelInUse]:
    for run in runs.unfinished_runs(connection):
        yield from _of_run(run)
    for index in indexes.ready_indexes(connection):
        yield ModelInUse(
            kind="embedder",
            spec=index.embedder,
            fingerprint=index.embedder_fingerprint,
            used_by=(f"index {index.collection}",),
            waited_for=False,
        )


def _of_run(run: RunRow) -> Iterator[ModelInUse]:
    """What its stages from the present one on need."""
    user = f"run {run.id}"
    if run.stage in (Stage.EMBED, Stage.SEARCH):
        yield ModelInUse(
            kind="embedder",
            spec=run.embedder,
            fingerprint=run.embedder_fingerprint,
            used_by=(user,),
            waited_for=True,
        )
    if run.scorer is None or run.scorer_fingerprint is None or run.stage is Stage.RANK:
        return
    if run.kind is RunKind.TOKENS:
        yield ModelInUse(
            kind="vision",
            spec=run.scorer,
            fingerprint=run.scorer_fingerprint,
            used_by=(user,),
            waited_for=True,
            limits=TokenParams.model_validate(run.params),
        )
    else:
        yield ModelInUse(
            kind="scorer",
            spec=run.scorer,
            fingerprint=run.scorer_fingerprint,
            used_by=(user,),
            waited_for=True,
            scorer=RunParams.model_validate(run.params).scorer,
        )
