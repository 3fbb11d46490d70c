"""Tallies: what jobs measured of their own work, as deltas and their sums.

Revision: 0008, after 0007.
Compatible with workers of the previous release: yes; they tally nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NAMES = "name IN ('pairs', 'prefixes', 'pictures', 'vectors', 'top_share')"

_V_TALLY = """
CREATE VIEW v_tally AS
SELECT run_id, name, sum(amount) AS amount
FROM (
    SELECT run_id, name::text, amount FROM tally
    UNION ALL
    SELECT run_id, name::text, amount FROM tally_delta
) AS told
GROUP BY run_id, name
"""


def upgrade() -> None:
    op.create_table(
        "tally_delta",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        *_columns(),
        sa.CheckConstraint(_NAMES, name=op.f("ck_tally_delta_tallyname")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tally_delta")),
        comment="What one job measured of its own work, not yet in tally.",
    )
    op.create_table(
        "tally",
        *_columns(),
        sa.CheckConstraint(_NAMES, name=op.f("ck_tally_tallyname")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_tally_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "name", name=op.f("pk_tally")),
        comment="What the jobs of a run measured, but for what tally_delta still holds.",
    )
    op.execute(_V_TALLY)
    op.execute("COMMENT ON VIEW v_tally IS 'What the jobs of each run measured of their own work.'")


def downgrade() -> None:
    op.execute("DROP VIEW v_tally")
    op.drop_table("tally")
    op.drop_table("tally_delta")


def _columns() -> list[sa.Column[object]]:
    return [
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=16), nullable=False, comment="Of what."),
        sa.Column("amount", sa.Double(), nullable=False),
    ]
