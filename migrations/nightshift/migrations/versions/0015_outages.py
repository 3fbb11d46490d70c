"""When a job's outages began, so that one that only this job sees can cost it attempts.

Revision: 0015, after 0014.
Compatible with workers of the previous release: yes; they never set it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_COMMENT = (
    "When the first outage sent it back, or the job that it is a half of; empty where none did."
)


def upgrade() -> None:
    # On a partitioned table it reaches the partitions.
    op.add_column("job", sa.Column("outage_since", sa.DateTime(timezone=True), comment=_COMMENT))


def downgrade() -> None:
    op.drop_column("job", "outage_since")
