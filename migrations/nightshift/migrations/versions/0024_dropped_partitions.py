"""A function that drops a run's partitions, so that who prunes need not own the tables.

Revision: 0024, after 0023.
Compatible with workers of the previous release: yes, the function alone.
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# With the rights of its owner, and with names that no caller can put others in place of. It waits
# half a second for a table: less than it takes Postgres to see a deadlock.
_DROP_RUN_PARTITIONS = """
CREATE FUNCTION drop_run_partitions(of_run bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    parent text;
BEGIN
    IF EXISTS (SELECT FROM run WHERE id = of_run AND state IN ('running', 'paused')) THEN
        RAISE 'run % has not ended', of_run;
    END IF;
    FOR parent IN
        SELECT relname FROM pg_partitioned_table JOIN pg_class ON pg_class.oid = partrelid
        WHERE relnamespace = 'public'::regnamespace
            AND pg_get_partkeydef(partrelid) = 'LIST (run_id)'
        ORDER BY pg_class.oid
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I', parent || '_r' || of_run);
    END LOOP;
    RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN false;
END $$
"""


def upgrade() -> None:
    op.execute(_DROP_RUN_PARTITIONS)
    op.execute(
        "COMMENT ON FUNCTION drop_run_partitions IS "
        "'Drops the partitions of a run that has ended; false, and none is dropped, while others "
        "use the tables.'"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION drop_run_partitions")
