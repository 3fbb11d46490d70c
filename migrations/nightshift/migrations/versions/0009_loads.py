"""What a worker is loading: a load that it does not survive counts against the run.

Revision: 0009, after 0008.
Compatible with workers of the previous release: yes; their loads do not count.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "worker",
        sa.Column(
            "loading",
            sa.Text(),
            nullable=True,
            comment="Fingerprint of the weights that it is loading for its run.",
        ),
    )
    op.add_column(
        "worker",
        sa.Column("loading_since", sa.DateTime(timezone=True), nullable=True),
    )


def downgrade() -> None:
    op.drop_column("worker", "loading_since")
    op.drop_column("worker", "loading")
