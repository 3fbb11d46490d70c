"""A function that makes a run's partitions, so that who writes need not own the tables.

Revision: 0005, after 0004.
Compatible with workers of the previous release: yes, the function alone.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# With the rights of its owner, and with names that no caller can put others in place of.
_MAKE_RUN_PARTITIONS = """
CREATE FUNCTION make_run_partitions(of_run bigint) RETURNS void
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
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%L)',
            parent, parent || '_r' || of_run, of_run);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute(_MAKE_RUN_PARTITIONS)
    op.execute(
        "COMMENT ON FUNCTION make_run_partitions IS "
        "'Gives a new run its partitions of every table that is partitioned by run.'"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION make_run_partitions")
