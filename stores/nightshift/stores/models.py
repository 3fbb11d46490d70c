"""Which models are waited for: by runs that are not done, and by indexes that searches use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from nightshift.schema.models import ModelInUse
from nightshift.schema.states import Stage
from nightshift.schema.tables import Model
from nightshift.stores.index import indexes
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.run_types import AnyRun, IndexedRun, RerankRun, TokenRun
from nightshift.stores.postgres.rows import columns_of

__all__ = ["ModelRow", "embedder_card", "get_model", "models_in_use", "upsert_model"]


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


def _of_run(run: AnyRun) -> Iterator[ModelInUse]:
    """Models that the stages of a run need, from the present one on."""
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
    """What the fingerprint of an index's embedder is made of."""
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
    """Keep what a fingerprint stands for; the first description stays."""
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
    """What a fingerprint stands for."""

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
