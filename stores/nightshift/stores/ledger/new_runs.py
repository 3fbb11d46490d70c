"""Insert runs, each with its partitions of the tables that hold jobs and results."""

from typing import Any

from sqlalchemy import Connection, func, insert, select, text

from nightshift.schema.ledger_tables import Run
from nightshift.schema.params import IndexParams, RerankParams, TokenParams
from nightshift.schema.plans import IndexPlan, RerankPlan, TokenPlan
from nightshift.schema.states import RunKind, Stage

__all__ = ["create_index_run", "create_rerank_run", "create_token_run"]


def create_index_run(
    connection: Connection,
    *,
    catalog_id: int,
    revision: int,
    index_id: int,
    params: IndexParams,
    plan: IndexPlan,
    priority: int = 5,
) -> int:
    """Insert an index run; its jobs follow in the same transaction.

    Returns:
        The run's id.
    """
    return _insert(
        connection,
        kind=RunKind.INDEX,
        stage=Stage.EMBED,
        catalog_id=catalog_id,
        revision=revision,
        index_id=index_id,
        params=params.model_dump(mode="json"),
        plan=plan.to_json(),
        priority=priority,
    )


def create_rerank_run(
    connection: Connection,
    *,
    catalog_id: int,
    revision: int,
    index_id: int,
    query_set_id: int,
    token_set_id: int | None = None,
    scorer: str,
    scorer_fingerprint: str,
    params: RerankParams,
    plan: RerankPlan,
    priority: int = 5,
    stage: Stage = Stage.EMBED,
) -> int:
    """Insert a re-ranking run; the dispatcher plans its jobs stage by stage.

    Returns:
        The run's id.
    """
    run_id = _insert(
        connection,
        kind=RunKind.RERANK,
        stage=stage,
        catalog_id=catalog_id,
        revision=revision,
        index_id=index_id,
        query_set_id=query_set_id,
        token_set_id=token_set_id,
        method=params.scorer.method,
        scorer=scorer,
        scorer_fingerprint=scorer_fingerprint,
        params=params.model_dump(mode="json"),
        plan=plan.to_json(),
        priority=priority,
    )
    connection.execute(_MAKE_SCORE_PARTITION, {"run": run_id})
    return run_id


def create_token_run(
    connection: Connection,
    *,
    stage: Stage,
    catalog_id: int,
    revision: int,
    token_set_id: int,
    vision: str,
    vision_fingerprint: str,
    params: TokenParams,
    plan: TokenPlan,
    priority: int = 5,
) -> int:
    """Insert a run that makes visual tokens; its jobs follow in the same transaction.

    Returns:
        The run's id.
    """
    return _insert(
        connection,
        kind=RunKind.TOKENS,
        stage=stage,
        catalog_id=catalog_id,
        revision=revision,
        token_set_id=token_set_id,
        scorer=vision,
        scorer_fingerprint=vision_fingerprint,
        params=params.model_dump(mode="json"),
        plan=plan.to_json(),
        priority=priority,
    )


def _insert(connection: Connection, **values: Any) -> int:  # noqa: ANN401 - columns of run
    """Insert a run and attach its partitions."""
    inserted = connection.execute(insert(Run).values(**values).returning(Run.id))
    run_id = int(inserted.scalar_one())
    connection.execute(select(func.make_run_partitions(run_id)))
    return run_id


# Makes the partition that the scores of a run go to, where no run before made it.
_MAKE_SCORE_PARTITION = text("""
    SELECT make_score_partition(model.number,
        date_trunc('month', run.created_at AT TIME ZONE 'UTC')::date)
    FROM run JOIN model ON model.fingerprint = run.scorer_fingerprint WHERE run.id = :run
""")
