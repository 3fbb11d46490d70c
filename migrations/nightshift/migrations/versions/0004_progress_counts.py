"""Progress as counts: each statement that moves jobs leaves a delta, compacted in the background.

Revision: 0004, after 0003.
Compatible with workers of the previous release: yes; triggers count for them too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A row per stage and state that the statement changed, never an update of a row that another
# worker's commit waits for.
_NOTE_JOBS = """
CREATE FUNCTION note_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO job_delta (run_id, stage, state, jobs, units, units_failed)
        SELECT run_id, stage, state, count(*), sum(n_units), sum(n_failed)
        FROM new_jobs GROUP BY run_id, stage, state;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO job_delta (run_id, stage, state, jobs, units, units_failed)
        SELECT run_id, stage, state, -count(*), -sum(n_units), -sum(n_failed)
        FROM old_jobs GROUP BY run_id, stage, state;
    ELSE
        INSERT INTO job_delta (run_id, stage, state, jobs, units, units_failed)
        SELECT run_id, stage, state, sum(n), sum(n * n_units), sum(n * n_failed)
        FROM (
            SELECT 1 AS n, run_id, stage, state, n_units, n_failed FROM new_jobs
            UNION ALL
            SELECT -1, run_id, stage, state, n_units, n_failed FROM old_jobs
        ) AS changed
        GROUP BY run_id, stage, state
        HAVING sum(n) <> 0 OR sum(n * n_units) <> 0 OR sum(n * n_failed) <> 0;
    END IF;
    RETURN NULL;
END $$
"""

_TRIGGERS = {
    "INSERT": "NEW TABLE AS new_jobs",
    "UPDATE": "OLD TABLE AS old_jobs NEW TABLE AS new_jobs",
    "DELETE": "OLD TABLE AS old_jobs",
}

_COUNT_WHAT_IS_THERE = """
INSERT INTO job_count (run_id, stage, state, jobs, units, units_failed)
SELECT run_id, stage, state, count(*), sum(n_units), sum(n_failed) FROM job
GROUP BY run_id, stage, state
"""

_V_RUN_PROGRESS = """
CREATE OR REPLACE VIEW v_run_progress AS
SELECT run.id AS run_id, run.kind, run.state AS run_state, s.stage,
       s.jobs, s.queued, s.running, s.done, s.failed, s.units, s.units_done, s.units_failed,
       (SELECT min(started_at) FROM job WHERE job.run_id = run.id AND job.stage = s.stage)
           AS started_at,
       (SELECT max(finished_at) FROM job WHERE job.run_id = run.id AND job.stage = s.stage)
           AS finished_at,
       s.units_left
FROM run JOIN (
    SELECT run_id, stage::varchar(16) AS stage,
           sum(jobs)::bigint AS jobs,
           coalesce(sum(jobs) FILTER (WHERE state = 'queued'), 0)::bigint AS queued,
           coalesce(sum(jobs) FILTER (WHERE state = 'running'), 0)::bigint AS running,
           coalesce(sum(jobs) FILTER (WHERE state = 'done'), 0)::bigint AS done,
           coalesce(sum(jobs) FILTER (WHERE state = 'failed'), 0)::bigint AS failed,
           coalesce(sum(units) FILTER (WHERE state <> 'split'), 0)::bigint AS units,
           coalesce(sum(units) FILTER (WHERE state = 'done'), 0)::bigint AS units_done,
           coalesce(sum(units_failed), 0)::bigint AS units_failed,
           coalesce(sum(units) FILTER (WHERE state IN ('queued', 'running')), 0)::bigint
               AS units_left
    FROM (
        SELECT run_id, stage, state, jobs, units, units_failed FROM job_count
        UNION ALL
        SELECT run_id, stage, state, jobs, units, units_failed FROM job_delta
    ) AS counted
    GROUP BY run_id, stage HAVING sum(jobs) > 0
) AS s ON s.run_id = run.id
"""

_V_RUN_PROGRESS_BEFORE = """
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

_UNITS_DONE = "Units of finished jobs, failed ones among them included."
_COMMENTS_BEFORE = (
    "COMMENT ON VIEW v_run_progress IS 'Jobs and units of each stage of each run, by state.'",
    "COMMENT ON COLUMN v_run_progress.units IS 'Items, queries or pairs planned in this stage.'",
    f"COMMENT ON COLUMN v_run_progress.units_done IS '{_UNITS_DONE}'",
)


def upgrade() -> None:
    op.create_table(
        "job_delta",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        *_count_columns(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_delta")),
        comment="What statements added to counts of jobs and took from them, not yet in job_count.",
    )
    op.create_table(
        "job_count",
        *_count_columns(),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_job_count_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "stage", "state", name=op.f("pk_job_count")),
        comment="Jobs and units of a run by stage and state, but for what job_delta still holds.",
    )
    op.execute(_NOTE_JOBS)
    for event, tables in _TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER note_{event.lower()} AFTER {event} ON job REFERENCING {tables} "
            "FOR EACH STATEMENT EXECUTE FUNCTION note_jobs()"
        )
    op.execute(_COUNT_WHAT_IS_THERE)
    op.execute(_V_RUN_PROGRESS)
    op.execute("COMMENT ON COLUMN v_run_progress.units_left IS 'Units of jobs queued or running.'")
    op.drop_index("ix_job_waiting", table_name="job")
    op.create_index("ix_job_waiting", "job", ["id"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_job_started", "job", ["stage", "started_at"])
    op.create_index("ix_job_finished", "job", ["stage", "finished_at"])


def downgrade() -> None:
    op.drop_index("ix_job_finished", table_name="job")
    op.drop_index("ix_job_started", table_name="job")
    op.drop_index("ix_job_waiting", table_name="job")
    op.create_index(
        "ix_job_waiting",
        "job",
        ["queue", "not_before", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.execute("DROP VIEW v_run_progress")
    op.execute(_V_RUN_PROGRESS_BEFORE)
    for statement in _COMMENTS_BEFORE:
        op.execute(statement)
    for event in _TRIGGERS:
        op.execute(f"DROP TRIGGER note_{event.lower()} ON job")
    op.execute("DROP FUNCTION note_jobs()")
    op.drop_table("job_count")
    op.drop_table("job_delta")


def _count_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="Of the jobs."),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False, comment="Items, queries or pairs."),
        sa.Column(
            "units_failed", sa.BigInteger(), nullable=False, comment="Units without a result."
        ),
    ]
