"""How far the plan of a score stage has come: it is made in many transactions.

Revision: 0023, after 0018.
Compatible with workers of the previous release: yes. A dispatcher of the previous release plans a
stage in one transaction: stop it before the upgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "run",
        sa.Column(
            "planned_query",
            sa.BigInteger(),
            comment="While the score stage is planned: the last query whose pairs are prepared, 0 "
            "for none; empty while no planner is at work.",
        ),
    )
    op.add_column(
        "run",
        sa.Column(
            "planned_pairs",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="While the score stage is planned: pairs that have jobs.",
        ),
    )


def downgrade() -> None:
    # What was planned half is planned again from its beginning.
    op.execute(
        "UPDATE job SET state = 'split' FROM run WHERE run.id = job.run_id "
        "AND run.planned_query IS NOT NULL AND job.stage = 'score' AND job.state = 'queued'"
    )
    op.drop_column("run", "planned_pairs")
    op.drop_column("run", "planned_query")
