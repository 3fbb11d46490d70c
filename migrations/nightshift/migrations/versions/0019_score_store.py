"""Scores are kept once, in a store of their own, and candidates name them.

Rows of `pair_score` with the same key become one row of `score`. Partitions of `candidate` that are
made from now on leave room for the ids of scores.

Revision: 0019, after 0020.
Compatible with workers of the previous release: no; stop them before the upgrade.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import REAL

revision = "0019"
down_revision = "0020"
branch_labels = None
depends_on = None

_LOAD = "The load in model_load that it comes of; empty where nobody knows."

# With the rights of its owner, and with names that no caller can put others in place of.
_MAKE_SCORE_PARTITION = """
CREATE FUNCTION make_score_partition(of_scorer integer, of_month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    of_all_months text := 'score_s' || of_scorer;
    partition text := of_all_months || to_char(of_month, '"_"YYYYMM');
BEGIN
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    IF of_month <> date_trunc('month', of_month)
        OR NOT EXISTS (SELECT FROM model WHERE number = of_scorer) THEN
        RAISE 'there is no model %, or % is not the first day of a month', of_scorer, of_month;
    END IF;
    -- Who makes the same one waits here, and finds it made.
    LOCK TABLE ONLY score IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(quote_ident(of_all_months)) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE score INCLUDING DEFAULTS INCLUDING CONSTRAINTS) '
            'PARTITION BY RANGE (month)', of_all_months);
        EXECUTE format('ALTER TABLE score ATTACH PARTITION %I FOR VALUES IN (%L)',
            of_all_months, of_scorer);
    END IF;
    IF to_regclass(quote_ident(partition)) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE score INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
            partition);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            of_all_months, partition, of_month, of_month + interval '1 month');
    END IF;
END $$
"""

_MAKE_RUN_PARTITIONS = """
CREATE OR REPLACE FUNCTION make_run_partitions(of_run bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    parent text;
BEGIN
    IF NOT EXISTS (SELECT FROM run WHERE id = of_run) THEN
        RAISE 'there is no run %', of_run;
    END IF;
    FOR parent IN
        SELECT relname FROM pg_partitioned_table JOIN pg_class ON pg_class.oid = partrelid
        WHERE relnamespace = 'public'::regnamespace
            AND pg_get_partkeydef(partrelid) = 'LIST (run_id)'
        ORDER BY pg_class.oid
    LOOP
        -- ATTACH locks the parent far less than CREATE … PARTITION OF: commits of other runs go on.
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
            parent || '_r' || of_run, parent);
        <fillfactor>
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%L)',
            parent, parent || '_r' || of_run, of_run);
    END LOOP;
END $$
"""
_FILLFACTOR = """
        -- Candidates get their score later: half a page is kept for that, and no index changes.
        IF parent = 'candidate' THEN
            EXECUTE format('ALTER TABLE %I SET (fillfactor = 50)', parent || '_r' || of_run);
        END IF;
"""

# A partition for the scores of each run, whatever comes of it.
_MAKE_PARTITIONS = """
SELECT make_score_partition(number, month) FROM (
    SELECT DISTINCT number, date_trunc('month', run.created_at AT TIME ZONE 'UTC')::date AS month
    FROM run JOIN model ON fingerprint = scorer_fingerprint WHERE run.kind = 'rerank'
    ORDER BY 1, 2) AS wanted
"""

# Of rows with one key that with an entropy, and that which was computed, not copied, go first.
_MOVE_SCORES = """
INSERT INTO score (scorer, month, run_id, pair_key, margin, logit_positive, logit_negative,
    logsumexp, entropy, fired, fired_layer, uncertainty, plain_margin, written, load_id)
SELECT DISTINCT ON (number, pair_key) number,
    date_trunc('month', coalesce(origin.created_at, run.created_at) AT TIME ZONE 'UTC')::date,
    coalesce(origin.id, run.id), pair_key, margin, logit_positive, logit_negative, logsumexp,
    entropy, fired, fired_layer, uncertainty, plain_margin, written, load_id
FROM pair_score p JOIN run ON run.id = p.run_id JOIN model ON fingerprint = run.scorer_fingerprint
LEFT JOIN run origin ON origin.id = p.reused_from
ORDER BY number, pair_key, entropy IS NULL, reused_from IS NOT NULL, p.run_id, query_id, item_id
"""
_NAME_SCORES = """
UPDATE candidate c SET score_id = s.id
FROM pair_score p JOIN run ON run.id = p.run_id JOIN model ON fingerprint = run.scorer_fingerprint
JOIN score s ON s.scorer = number AND s.pair_key = p.pair_key
WHERE c.run_id = p.run_id AND c.query_id = p.query_id AND c.item_id = p.item_id
"""

_V_PAIR_SCORE = """
CREATE VIEW v_pair_score AS
SELECT c.run_id, q.external_id AS query, i.external_id AS item, s.margin, s.logit_positive,
    s.logit_negative, s.logsumexp, s.entropy, s.fired, s.fired_layer, s.uncertainty,
    s.plain_margin, s.written, s.run_id AS computed_by, s.load_id, s.pair_key, c.query_id,
    c.item_id, s.id AS score_id
FROM candidate c
JOIN run ON run.id = c.run_id
JOIN model m ON m.fingerprint = run.scorer_fingerprint
JOIN score s ON s.scorer = m.number AND s.id = c.score_id
JOIN query q ON q.id = c.query_id
JOIN item i ON i.id = c.item_id
"""
_VIEW_COMMENTS = {
    "run_id": "The run that has the pair.",
    "query": "Id of the query in its file.",
    "item": "Id of the item in its source.",
    "margin": "Log-odds of the positive label, or as the score says.",
    "logit_positive": "Of the positive label.",
    "logit_negative": "Of the negative label; in a list, of all its other members together.",
    "logsumexp": "Over the whole vocabulary.",
    "entropy": "Nats, over the whole vocabulary; of a second question where scores tied.",
    "fired": "Whether the visual enhancement acted.",
    "fired_layer": "Decoder layer, from 0, whose uncertainty fired it.",
    "uncertainty": "Of the layer that decided, 0 to 1.",
    "plain_margin": "Without the enhancement, where the run compared the two.",
    "written": "What the model wrote, where that is the score.",
    "computed_by": "The run that computed it; later runs use it as it is.",
    "load_id": "The load in model_load that it comes of; empty where nobody knows.",
    "pair_key": "What names the pair of contents under its scorer.",
    "query_id": "The query, by query.id.",
    "item_id": "The item, by item.id.",
    "score_id": "Its row in score.",
}

_MAKE_PAIR_SCORE_PARTITIONS = """
DO $$
DECLARE
    of_run bigint;
BEGIN
    FOR of_run IN SELECT id FROM run ORDER BY id LOOP
        IF to_regclass('candidate_r' || of_run) IS NOT NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF pair_score FOR VALUES IN (%L)',
                'pair_score_r' || of_run, of_run);
        END IF;
    END LOOP;
END $$
"""
# Rows without a candidate are left out.
_MOVE_BACK = """
INSERT INTO pair_score (run_id, query_id, item_id, reused_from, pair_key, margin, logit_positive,
    logit_negative, logsumexp, entropy, fired, fired_layer, uncertainty, plain_margin, written,
    load_id)
SELECT c.run_id, c.query_id, c.item_id, nullif(s.run_id, c.run_id), s.pair_key, s.margin,
    s.logit_positive, s.logit_negative, s.logsumexp, s.entropy, s.fired, s.fired_layer,
    s.uncertainty, s.plain_margin, s.written, s.load_id
FROM candidate c JOIN score s ON s.id = c.score_id
"""


def upgrade() -> None:
    op.add_column("model", _number())
    op.create_unique_constraint(op.f("uq_model_number"), "model", ["number"])
    op.execute("CREATE SEQUENCE score_id_seq")
    op.create_table(
        "score",
        sa.Column(
            "id",
            sa.BigInteger(),
            server_default=sa.text("nextval('score_id_seq')"),
            nullable=False,
            comment="Names it in candidates; of one sequence for all partitions.",
        ),
        sa.Column("scorer", sa.Integer(), nullable=False, comment="The scorer, by model.number."),
        sa.Column(
            "month",
            sa.Date(),
            nullable=False,
            comment="First day of the month in which the run that computed it was planned.",
        ),
        *_readings(),
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="The run that computed it."),
        sa.Column("load_id", sa.BigInteger(), nullable=True, comment=_LOAD),
        *_checks("score"),
        sa.PrimaryKeyConstraint("pair_key", "scorer", "month", name=op.f("pk_score")),
        comment="What a scorer read off a pair of contents, never rounded; one row a pair.",
        postgresql_partition_by="LIST (scorer)",
    )
    op.create_index(op.f("ix_score_id"), "score", ["id"])
    op.add_column(
        "candidate",
        sa.Column(
            "score_id",
            sa.BigInteger(),
            nullable=True,
            comment="Its score, by score.id; empty until it has one, and where scoring failed.",
        ),
    )
    op.execute(_MAKE_SCORE_PARTITION)
    op.execute(
        "COMMENT ON FUNCTION make_score_partition IS "
        "'Makes the partition of score for a scorer and a month, where there is none.'"
    )
    op.execute(_MAKE_RUN_PARTITIONS.replace("<fillfactor>", _FILLFACTOR.strip()))
    op.execute(_MAKE_PARTITIONS)
    op.execute(_MOVE_SCORES)
    op.execute(_NAME_SCORES)
    op.drop_table("pair_score")
    op.execute(_V_PAIR_SCORE)
    op.execute(
        "COMMENT ON VIEW v_pair_score IS 'Pairs of runs with their scores, by external ids.'"
    )
    for column, comment in _VIEW_COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN v_pair_score.{column} IS '{comment}'")


def downgrade() -> None:
    op.execute("DROP VIEW v_pair_score")
    op.create_table(
        "pair_score",
        sa.Column(
            "run_id",
            sa.BigInteger(),
            nullable=False,
            comment="The run that needed the score; its partition.",
        ),
        sa.Column("query_id", sa.BigInteger(), nullable=False, comment="The query, by query.id."),
        sa.Column("item_id", sa.BigInteger(), nullable=False, comment="The candidate, by item.id."),
        *_readings(),
        sa.Column(
            "reused_from",
            sa.BigInteger(),
            nullable=True,
            comment="The run that computed it, if not this.",
        ),
        sa.Column("load_id", sa.BigInteger(), nullable=True, comment=_LOAD),
        *_checks("pair_score"),
        sa.PrimaryKeyConstraint("run_id", "query_id", "item_id", name=op.f("pk_pair_score")),
        comment="What the scorer read off one (query, candidate) pair, never rounded.",
        postgresql_partition_by="LIST (run_id)",
    )
    op.create_index(op.f("ix_pair_score_pair_key"), "pair_score", ["pair_key"])
    op.execute(_MAKE_PAIR_SCORE_PARTITIONS)
    op.execute(_MOVE_BACK)
    op.execute(_MAKE_RUN_PARTITIONS.replace("        <fillfactor>\n", ""))
    op.execute("DROP FUNCTION make_score_partition")
    op.drop_column("candidate", "score_id")
    op.drop_table("score")
    op.execute("DROP SEQUENCE score_id_seq")
    op.drop_column("model", "number")


def _number() -> sa.Column[int]:
    return sa.Column(
        "number",
        sa.Integer(),
        sa.Identity(always=False),
        nullable=False,
        comment="Names it in tables of many rows.",
    )


def _readings() -> list[sa.Column[Any]]:
    columns: list[tuple[str, sa.types.TypeEngine[Any], bool, str]] = [
        (
            "pair_key",
            sa.LargeBinary(),
            False,
            "SHA-256 of scorer fingerprint, query and item content, and list if it is of one.",
        ),
        (
            "margin",
            REAL(),
            False,
            "Log-odds: positive label's logit minus the negative's, or as the score says.",
        ),
        (
            "logit_positive",
            REAL(),
            True,
            (
                "Of the positive label. This and the next three are empty where the model wrote "
                "the score."
            ),
        ),
        (
            "logit_negative",
            REAL(),
            True,
            "Of the negative label; in a list, of all its other members together.",
        ),
        ("logsumexp", REAL(), True, "Over the whole vocabulary."),
        (
            "entropy",
            REAL(),
            True,
            "Nats, over the whole vocabulary; of a second question where scores tied.",
        ),
        ("fired", sa.Boolean(), False, "Whether the visual enhancement acted."),
        (
            "fired_layer",
            sa.SmallInteger(),
            True,
            "Decoder layer, from 0, whose uncertainty fired it; empty where nothing fired.",
        ),
        ("uncertainty", REAL(), True, "Of the layer that decided, 0 to 1."),
        ("plain_margin", REAL(), True, "Without the enhancement, where the run compared the two."),
        ("written", sa.Text(), True, "What the model wrote, where that is the score."),
    ]
    return [
        sa.Column(name, kind, nullable=nullable, comment=comment)
        for name, kind, nullable, comment in columns
    ]


def _checks(table: str) -> list[sa.CheckConstraint]:
    conditions = {
        "finite": "margin > '-Infinity' AND margin < 'Infinity'",
        "logits": "num_nulls(logit_positive, logit_negative, logsumexp, entropy) IN (0, 4)",
        "read": "num_nonnulls(logit_positive, written) > 0",
        "fired": "fired = (fired_layer IS NOT NULL)",
    }
    return [
        sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
        for name, condition in conditions.items()
    ]
