"""Models by fingerprint, and which of them unfinished runs and ready indexes use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.columns_of import columns_of
from nightshift.schema.models import ModelInUse
from nightshift.schema.states import Stage
from nightshift.schema.tables import Model
from nightshift.stores.index import indexes
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.run_types import AnyRun, IndexedRun, RerankRun, TokenRun

__all__ = ["ModelRow", "embedder_card", "get_model", "models_in_use", "upsert_model"]


def models_in_use(connection: Connection) -> list[ModelInUse]:
    """The models in use, each once with all its users; those that a run waits for come first."""
    by_fingerprint: dict[str, ModelInUse] = {}
    for model in _all(connection):
        known = by_fingerprint.get(model.fingerprint)
        by_fingerprint[model.fingerprint] = (
            model if known is None else replace(known, used_by=(*known.used_by, *model.used_by))
        )
    return list(by_fingerprint.values())


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


def _of_run(run: AnyRun) -> Iterator[ModelInUse]:
    """The models that the current and later stages of a run use."""
    user = f"run {run.id}"
    if isinstance(run, IndexedRun) and run.stage in (Stage.EMBED, Stage.SEARCH):
        yield ModelInUse(
            kind="embedder",
            spec=run.embedder,
            fingerprint=run.embedder_fingerprint,
            used_by=(user,),
            waited_for=True,
        )
    if isinstance(run, TokenRun):
        yield ModelInUse(
            kind="vision",
            spec=run.vision,
            fingerprint=run.vision_fingerprint,
            used_by=(user,),
            waited_for=True,
            limits=run.params,
        )
    elif isinstance(run, RerankRun) and run.stage is not Stage.RANK:
        yield ModelInUse(
            kind="scorer",
            spec=run.scorer,
            fingerprint=run.scorer_fingerprint,
            used_by=(user,),
            waited_for=True,
            scorer=run.params.scorer,
        )


def embedder_card(connection: Connection, fingerprint: str) -> Mapping[str, Any]:
    """The description from which the fingerprint of an embedder was computed."""
    card: Mapping[str, Any] = connection.execute(
        select(Model.card).where(Model.fingerprint == fingerprint)
    ).scalar_one()
    return card


def upsert_model(
    connection: Connection,
    *,
    fingerprint: str,
    kind: str,
    spec: str,
    card: Mapping[str, Any],
    package_version: str,
) -> None:
    """Write the description of a model; the first one of a fingerprint stays."""
    connection.execute(
        insert(Model)
        .values(
            fingerprint=fingerprint,
            kind=kind,
            spec=spec,
            card=card,
            package_version=package_version,
        )
        .on_conflict_do_nothing()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """The description of a model."""

    fingerprint: str
    kind: str
    spec: str
    #: Weights, configuration, precision, method parameters.
    card: dict[str, Any]
    package_version: str


def get_model(connection: Connection, fingerprint: str) -> ModelRow:
    """The model that a run pins by fingerprint; a foreign key says that it exists."""
    row = connection.execute(
        select(*columns_of(ModelRow, Model)).where(Model.fingerprint == fingerprint)
    )
    return ModelRow(**row.mappings().one())
