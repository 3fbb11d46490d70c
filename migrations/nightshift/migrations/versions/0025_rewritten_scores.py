"""Functions that put a rewritten partition of scores in the place of the old one.

Revision: 0025, after 0024.
Compatible with workers of the previous release: yes, functions alone.
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# With the rights of its owner, and with names that no caller can put others in place of.
_BEGIN = """
CREATE FUNCTION begin_score_rewrite(of_scorer integer, of_month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    old text := 'score_s' || of_scorer || to_char(of_month, '"_"YYYYMM');
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS %I', old || '_kept');
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', old || '_kept', old);
    -- With it, Postgres need not read the rows when the table becomes a partition.
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT rewritten '
        'CHECK (scorer = %L AND month >= %L AND month < %L)',
        old || '_kept', of_scorer, of_month, of_month + interval '1 month');
END $$
"""

# It waits half a second for a table: less than it takes Postgres to see a deadlock.
_FINISH = """
CREATE FUNCTION finish_score_rewrite(of_scorer integer, of_month date, since timestamptz)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    parent text := 'score_s' || of_scorer;
    old text := parent || to_char(of_month, '"_"YYYYMM');
    is_empty boolean;
BEGIN
    -- Nobody takes the id of a score or deletes scores before this transaction ends.
    LOCK TABLE ONLY score IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM run JOIN model ON fingerprint = scorer_fingerprint
            WHERE number = of_scorer AND run.kind = 'rerank'
                AND (run.finished_at IS NULL OR run.finished_at > since))
        OR EXISTS (SELECT FROM model_load WHERE dropped_at > since) THEN
        EXECUTE format('DROP TABLE %I', old || '_kept');
        RETURN 'used';
    END IF;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %I)', old || '_kept') INTO is_empty;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, old);
    EXECUTE format('DROP TABLE %I', old);
    -- A run that is taken up again writes into the month in which it was planned.
    IF is_empty AND NOT EXISTS (SELECT FROM run JOIN model ON fingerprint = scorer_fingerprint
            WHERE number = of_scorer
                AND date_trunc('month', run.created_at AT TIME ZONE 'UTC') = of_month) THEN
        EXECUTE format('DROP TABLE %I', old || '_kept');
        RETURN 'dropped';
    END IF;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', old || '_kept', old);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, old, of_month, of_month + interval '1 month');
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT rewritten', old);
    RETURN 'rewritten';
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN 'busy';
END $$
"""

_COMMENTS = {
    "begin_score_rewrite": "Makes an empty table like the partition of a scorer and a month, for "
    "the scores that stay.",
    "finish_score_rewrite": "Puts that table in the place of the partition: rewritten, dropped if "
    "nothing needs it, used if a run came between, or busy.",
}


def upgrade() -> None:
    op.execute(_BEGIN)
    op.execute(_FINISH)
    for name, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON FUNCTION {name} IS '{comment}'")


def downgrade() -> None:
    for name in _COMMENTS:
        op.execute(f"DROP FUNCTION {name}")
