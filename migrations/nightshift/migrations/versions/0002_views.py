"""Views for analysts: rankings by external ids, progress, merged calibration.

Revision: 0002, after 0001.
Compatible with workers of the previous release: yes, views only.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_V_RANKING = """
CREATE VIEW v_ranking AS
SELECT r.run_id, q.external_id AS query, i.external_id AS item, r.final_rank, r.coarse_rank,
       r.coarse_score, r.margin, r.probability, r.entropy, r.fired, r.fired_layer,
       r.tie_group, r.tie_size, r.decided_by, r.scorer_fingerprint,
       qr.relevance, r.query_id, r.item_id
FROM ranking r
JOIN query q ON q.id = r.query_id
JOIN item i ON i.id = r.item_id
LEFT JOIN qrel qr ON qr.query_set_id = q.query_set_id
    AND qr.query_external_id = q.external_id AND qr.item_external_id = i.external_id
"""

_V_RUN_PROGRESS = """
CREATE VIEW v_run_progress AS
SELECT run.id AS run_id, run.kind, run.state AS run_state, s.stage,
       count(*) AS jobs,
       count(*) FILTER (WHERE s.state = 'queued') AS queued,
       count(*) FILTER (WHERE s.state = 'running') AS running,
       count(*) FILTER (WHERE s.state = 'done') AS done,
       count(*) FILTER (WHERE s.state = 'failed') AS failed,
       coalesce(sum(s.n_units) FILTER (WHERE s.state <> 'split'), 0)::bigint AS units,
       coalesce(sum(s.n_units) FILTER (WHERE s.state = 'done'), 0)::bigint AS units_done,
       coalesce(sum(s.n_failed), 0)::bigint AS units_failed,
       min(s.started_at) AS started_at, max(s.finished_at) AS finished_at
FROM run JOIN job s ON s.run_id = run.id
GROUP BY run.id, s.stage
"""

_V_CALIBRATION = """
CREATE VIEW v_calibration AS
SELECT c.run_id, f.key AS statistic,
       CASE jsonb_typeof(f.value) WHEN 'number' THEN NULL ELSE b.bin END AS bin,
       sum(b.count)::double precision AS value
FROM calibration c
CROSS JOIN LATERAL jsonb_each(c.statistics) AS f
CROSS JOIN LATERAL (
    SELECT '' AS bin, f.value::text::double precision AS count
    WHERE jsonb_typeof(f.value) = 'number'
    UNION ALL
    SELECT (e.n - 1)::text, e.v::text::double precision
    FROM jsonb_array_elements(
        CASE jsonb_typeof(f.value) WHEN 'array' THEN f.value ELSE '[]' END
    ) WITH ORDINALITY AS e(v, n)
    UNION ALL
    SELECT o.key, o.value::text::double precision
    FROM jsonb_each(CASE jsonb_typeof(f.value) WHEN 'object' THEN f.value ELSE '{}' END) AS o
) AS b
WHERE f.key <> 'version'
GROUP BY c.run_id, f.key, 3
"""

_COMMENTS = {
    "v_ranking": "Final rankings by external ids, each row with what put it there.",
    "v_run_progress": "Jobs and units of each stage of each run, by state.",
    "v_calibration": "Statistics of a run, merged over its rank jobs: one row a statistic and bin.",
}

_COLUMN_COMMENTS = {
    "v_ranking.query": "Id of the query in its file.",
    "v_ranking.item": "Id of the item in its source.",
    "v_ranking.final_rank": "Place after fine scoring, from 1.",
    "v_ranking.margin": "Log-odds of the positive label; empty where scoring the pair failed.",
    "v_ranking.probability": "Logistic of the margin, 0 to 1.",
    "v_ranking.entropy": "Of the next token over the whole vocabulary, in nats.",
    "v_ranking.fired": "Whether the visual enhancement acted on this pair.",
    "v_ranking.decided_by": "score, entropy (tie-break) or coarse (order of the coarse search).",
    "v_ranking.relevance": "From the judgements of the query set; empty where unjudged.",
    "v_run_progress.units": "Items, queries or pairs planned in this stage.",
    "v_run_progress.units_done": "Units of finished jobs, failed ones among them included.",
    "v_calibration.statistic": "Such as score_histogram, fired_by_layer, tied_queries.",
    "v_calibration.bin": "Index of the histogram bin, or the layer; empty for plain counts.",
}


def upgrade() -> None:
    for view in (_V_RANKING, _V_RUN_PROGRESS, _V_CALIBRATION):
        op.execute(view)
    for view, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON VIEW {view} IS '{comment}'")
    for column, comment in _COLUMN_COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    for view in reversed(_COMMENTS):
        op.execute(f"DROP VIEW {view}")
