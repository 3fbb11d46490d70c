"""Constraints that make wrong states impossible.

Rows that earlier programs may have left in such a state, and that are written again, are mended.
Others may stay: a check is then kept for new rows alone.

Revision: 0011, after 0010.
Compatible with workers of the previous release: yes; what they write keeps these rules.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_MEND = """
UPDATE run SET finished_at = CASE WHEN state IN ('done', 'failed', 'cancelled') THEN now() END
WHERE (state IN ('done', 'failed', 'cancelled')) <> (finished_at IS NOT NULL);

UPDATE job SET state = 'queued', lease_until = NULL, worker_id = NULL, sent_at = NULL
WHERE state = 'running' AND num_nulls(worker_id, started_at) > 0;

UPDATE job SET finished_at = CASE WHEN state IN ('done', 'failed') THEN now() END
WHERE state <> 'split' AND (state IN ('done', 'failed')) <> (finished_at IS NOT NULL);

UPDATE job SET n_failed = n_units WHERE n_failed > n_units;

-- Later nights copy scores.
UPDATE pair_score SET fired = (fired_layer IS NOT NULL) WHERE fired <> (fired_layer IS NOT NULL);

UPDATE candidate c SET coarse_rank = told.place
FROM (
    SELECT run_id, query_id, item_id, row_number() OVER (
        PARTITION BY run_id, query_id ORDER BY coarse_rank, coarse_score DESC, item_id) AS place
    FROM candidate WHERE (run_id, query_id) IN (
        SELECT run_id, query_id FROM candidate
        GROUP BY run_id, query_id, coarse_rank HAVING count(*) > 1)
) AS told
WHERE c.run_id = told.run_id AND c.query_id = told.query_id AND c.item_id = told.item_id
    AND c.coarse_rank <> told.place
"""

_STAGES = "'embed', 'search', 'score', 'rank', 'codebook', 'tokens', 'answer'"

# Table, name, condition.
_CHECKS = (
    ("catalog_import", "counts", "least(read, accepted, failed, unchanged) >= 0"),
    ("query", "named", "length(external_id) > 0"),
    ("query_set", "n_queries", "n_queries >= 0"),
    # The first tables went without this one.
    ("index", "parts", "parts IN ('text', 'image', 'text,image')"),
    ("index", "version", "version > 0"),
    ("index", "metric", "metric IN ('COSINE', 'IP')"),
    (
        "index",
        "index_type",
        "index_type IN ('FLAT', 'HNSW', 'IVF_FLAT', 'IVF_SQ8', 'IVF_PQ', 'SCANN', 'DISKANN')",
    ),
    (
        "run",
        "ended",
        "(state IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
    ),
    (
        "run",
        "stage_of_kind",
        (
            "CASE kind WHEN 'index' THEN stage = 'embed' "
            "WHEN 'tokens' THEN stage IN ('codebook', 'tokens') "
            "ELSE stage IN ('embed', 'search', 'score', 'rank', 'answer') END"
        ),
    ),
    ("run", "rerank_has_method", "(kind = 'rerank') = (method IS NOT NULL)"),
    ("run", "method", "method IN ('retllm', 'freeret', 'indexmllm')"),
    ("run", "scorer_is_known", "(scorer IS NULL) = (scorer_fingerprint IS NULL)"),
    ("run", "priority", "priority BETWEEN 0 AND 9"),
    ("job", "running", "state <> 'running' OR num_nulls(worker_id, started_at) = 0"),
    (
        "job",
        "ended",
        "state = 'split' OR (state IN ('done', 'failed')) = (finished_at IS NOT NULL)",
    ),
    ("job", "n_failed", "n_failed BETWEEN 0 AND n_units"),
    (
        "failure",
        "stage_of_owner",
        f"CASE WHEN run_id IS NULL THEN stage = 'import' ELSE stage IN ({_STAGES}) END",
    ),
    ("pair_score", "finite", "margin > '-Infinity' AND margin < 'Infinity'"),
    (
        "pair_score",
        "logits",
        "num_nulls(logit_positive, logit_negative, logsumexp, entropy) IN (0, 4)",
    ),
    ("pair_score", "read", "num_nonnulls(logit_positive, written) > 0"),
    ("pair_score", "fired", "fired = (fired_layer IS NOT NULL)"),
    (
        "ranking",
        "scored",
        "num_nulls(margin, probability, fired, tie_group, tie_size) IN (0, 5)",
    ),
    ("ranking", "fired", "coalesce(fired, false) = (fired_layer IS NOT NULL)"),
    ("ranking", "ties", "tie_group >= 1 AND tie_size >= 1"),
    (
        "ranking",
        "reason",
        (
            "CASE decided_by WHEN 'score' THEN margin IS NOT NULL "
            "WHEN 'entropy' THEN entropy IS NOT NULL AND tie_size > 1 ELSE true END"
        ),
    ),
    ("answer", "n_tokens", "n_tokens >= 0"),
    ("answer", "lists", "jsonb_typeof(shown) = 'array' AND jsonb_typeof(cited) = 'array'"),
    ("calibration", "statistics", "jsonb_typeof(statistics) = 'object'"),
    ("token_shard", "n_bytes", "n_bytes > 0"),
    ("token_record", "place", "start >= 0 AND n_bytes > 0"),
    ("token_record", "counts", "n_images > 0 AND n_tokens > 0"),
)

# Name, table, columns.
_UNIQUE = (
    (
        "uq_candidate_run_id_query_id_coarse_rank",
        "candidate",
        ["run_id", "query_id", "coarse_rank"],
    ),
    ("uq_token_shard_token_set_id_name", "token_shard", ["token_set_id", "name"]),
)


def upgrade() -> None:
    op.execute(_MEND)
    for table, name, condition in _CHECKS:
        # On a partitioned table it reaches the partitions.
        constraint = f"ck_{table}_{name}"
        op.create_check_constraint(op.f(constraint), table, condition, postgresql_not_valid=True)
        op.execute(
            f'DO $$ BEGIN ALTER TABLE "{table}" VALIDATE CONSTRAINT {constraint}; '
            "EXCEPTION WHEN check_violation THEN "
            f"RAISE WARNING 'old rows break {constraint}: it holds for new ones'; END $$"
        )
    for name, table, columns in _UNIQUE:
        op.create_unique_constraint(op.f(name), table, columns)


def downgrade() -> None:
    for name, table, _ in _UNIQUE:
        op.drop_constraint(op.f(name), table, type_="unique")
    for table, name, _ in _CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table, type_="check")
