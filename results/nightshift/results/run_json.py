"""A run of any kind as one flat JSON object, the shape that `--json` has always had."""

from typing import Any

from nightshift.stores.ledger.run_types import AnyRun, IndexedRun, RerankRun, TokenRun

__all__ = ["plan_json", "run_json"]


def run_json(run: AnyRun) -> dict[str, Any]:
    """The fields of a run; those that its kind does not have are null, or 0 and empty of its index.

    Args:
        run: Of any kind.
    """
    return {
        "id": run.id,
        "kind": run.kind,
        "state": run.state,
        "stage": run.stage,
        "catalog_id": run.catalog_id,
        "catalog": run.catalog,
        "revision": run.revision,
        **_index_json(run),
        "query_set_id": run.query_set_id if isinstance(run, RerankRun) else None,
        "query_set": run.query_set if isinstance(run, RerankRun) else None,
        "token_set_id": run.token_set_id if isinstance(run, RerankRun | TokenRun) else None,
        "method": run.method if isinstance(run, RerankRun) else None,
        **_scorer_json(run),
        "params": run.params.model_dump(mode="json"),
        "plan": plan_json(run),
        "priority": run.priority,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
    }


def plan_json(run: AnyRun) -> dict[str, Any]:
    """The counts that planning found; of a re-ranking run also how often it had to plan again."""
    control = run.control.to_json() if isinstance(run, RerankRun) else {}
    # The number of ties already shows that tied queries were planned.
    control.pop("ties_asked", None)
    return {**run.plan.to_json(), **control}


def _index_json(run: AnyRun) -> dict[str, Any]:
    if isinstance(run, IndexedRun):
        return {
            "index_id": run.index_id,
            "index_name": run.index_name,
            "collection": run.collection,
            "embedder": run.embedder,
            "embedder_fingerprint": run.embedder_fingerprint,
            "index_parts": run.index_parts,
        }
    return {
        "index_id": 0,
        "index_name": "",
        "collection": "",
        "embedder": "",
        "embedder_fingerprint": "",
        "index_parts": "",
    }


def _scorer_json(run: AnyRun) -> dict[str, Any]:
    if isinstance(run, RerankRun):
        return {"scorer": run.scorer, "scorer_fingerprint": run.scorer_fingerprint}
    if isinstance(run, TokenRun):
        return {"scorer": run.vision, "scorer_fingerprint": run.vision_fingerprint}
    return {"scorer": None, "scorer_fingerprint": None}
