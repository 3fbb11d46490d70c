"""Answers to queries, and the stage that makes them.

Revision: 0006, after 0005.
Compatible with workers of the previous release: yes; they do not serve the new stage.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OLD_STAGES = "'embed', 'search', 'score', 'rank', 'codebook', 'tokens'"


def upgrade() -> None:
    op.create_table(
        "answer",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("query_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "shown",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Ids of the items shown, the best first.",
        ),
        sa.Column(
            "cited",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Ids of the items that the text cites, in order of mention.",
        ),
        sa.Column("n_tokens", sa.BigInteger(), nullable=False),
        sa.Column(
            "ended",
            sa.Boolean(),
            nullable=False,
            comment="False where it was cut at the longest length.",
        ),
        sa.Column(
            "answerer",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="What made it: scorer, wording, limits.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_answer_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "query_id", name=op.f("pk_answer")),
        comment="What the model answered to a query from its best results.",
    )
    _replace_stages(f"{_OLD_STAGES}, 'answer'")


def downgrade() -> None:
    op.drop_table("answer")
    op.execute("DELETE FROM job WHERE stage = 'answer'")
    op.execute(
        "UPDATE run SET stage = 'rank', state = CASE WHEN state = 'running' THEN 'done' "
        "ELSE state END, finished_at = coalesce(finished_at, clock_timestamp()) "
        "WHERE stage = 'answer'"
    )
    _replace_stages(_OLD_STAGES)


def _replace_stages(stages: str) -> None:
    # On a partitioned table both reach the partitions.
    for table in ("run", "job"):
        constraint = op.f(f"ck_{table}_stage")
        op.drop_constraint(constraint, table, type_="check")
        op.create_check_constraint(constraint, table, f"stage IN ({stages})")
