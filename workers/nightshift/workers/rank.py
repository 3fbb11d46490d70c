"""Rank a block of queries: tie-break, final order, and the block's calibration statistics."""

from functools import reduce
from math import nan

from nightshift.schema.messages import BlockPayload
from nightshift.schema.params import RerankParams
from nightshift.scoring.calibration import CalibrationStats, observe_query
from nightshift.scoring.fusion import fused
from nightshift.scoring.tie_break import Placement, break_ties
from nightshift.stores.catalog import judgements
from nightshift.stores.ledger.claims import Claim
from nightshift.stores.ledger.run_types import RerankRun
from nightshift.stores.results.writes import (
    RankingRow,
    ScoredCandidate,
    load_scored_candidates,
    write_calibration,
    write_rankings,
)
from nightshift.workers.lease_renewal import Progress
from nightshift.workers.session import WorkerSession

__all__ = ["do_rank"]


def do_rank(
    session: WorkerSession, claim: Claim[RerankRun, BlockPayload], progress: Progress, _model: None
) -> None:
    """Order the candidates of the job's queries, each with the rule that decided its place."""
    run, ids = claim.run, claim.payload.ids
    params = run.params
    with session.database.begin() as connection:
        candidates_of = load_scored_candidates(connection, run, ids)
        relevant = judgements.relevant_items(connection, run.catalog_id, ids)
    rows: list[RankingRow] = []
    statistics: list[CalibrationStats] = []
    for query_id, candidates in candidates_of.items():
        if candidates:
            placements = _place(candidates, params, [c.margin for c in candidates])
            rows += _rows(run, candidates, placements)
            statistics.append(_observe(candidates, params, placements, relevant.get(query_id)))
    progress.step()
    merged = reduce(CalibrationStats.merge, statistics, CalibrationStats())
    with session.ledger.finish(claim) as connection:
        write_rankings(connection, rows)
        write_calibration(
            connection, run_id=run.id, job_id=claim.job_id, statistics=merged.to_json()
        )


def _place(
    candidates: list[ScoredCandidate], params: RerankParams, margins: list[float | None]
) -> list[Placement]:
    known = [nan if margin is None else margin for margin in margins]
    scores = exact = None
    if params.fusion:
        coarse = [c.coarse_score for c in candidates]
        scores, exact = fused(coarse, known, weight=params.fusion, scale=params.fusion_scale)
    return break_ties(
        known,
        [nan if c.entropy is None else c.entropy for c in candidates],
        [c.coarse_rank for c in candidates],
        quantum=params.quantum,
        fused=scores,
        exact=exact,
        guard=params.tie_guard,
    )


def _observe(
    candidates: list[ScoredCandidate],
    params: RerankParams,
    placements: list[Placement],
    relevant: frozenset[int] | None,
) -> CalibrationStats:
    return observe_query(
        placements,
        entropies=[nan if c.entropy is None else c.entropy for c in candidates],
        fired_layers=[c.fired_layer if c.fired else None for c in candidates],
        relevant=None if relevant is None else [c.item_id in relevant for c in candidates],
        n_reused=sum(c.reused for c in candidates),
        plain_winner=_plain_winner(candidates, params),
    )


def _plain_winner(candidates: list[ScoredCandidate], params: RerankParams) -> int | None:
    """Place of the winner without the enhancement; None where not every fired pair was compared."""
    plain = [c.plain_margin if c.fired else c.margin for c in candidates]
    if not any(c.fired for c in candidates) or any(
        margin is None and c.fired for margin, c in zip(plain, candidates, strict=True)
    ):
        return None
    # By exact score: the entropy without the enhancement was not kept.
    placements = _place(candidates, params.model_copy(update={"quantum": 0.0}), plain)
    ranks = [placement.final_rank for placement in placements]
    return ranks.index(1)


def _rows(
    run: RerankRun, candidates: list[ScoredCandidate], placements: list[Placement]
) -> list[RankingRow]:
    return [
        RankingRow(
            run_id=run.id,
            query_id=candidate.query_id,
            final_rank=placement.final_rank,
            item_id=candidate.item_id,
            coarse_rank=candidate.coarse_rank,
            coarse_score=candidate.coarse_score,
            margin=candidate.margin,
            probability=placement.probability,
            entropy=candidate.entropy,
            fired=candidate.fired,
            fired_layer=candidate.fired_layer,
            tie_group=placement.tie_group,
            tie_size=placement.tie_size,
            decided_by=placement.decided_by.value,
            scorer_fingerprint=run.scorer_fingerprint,
        )
        for candidate, placement in zip(candidates, placements, strict=True)
    ]
