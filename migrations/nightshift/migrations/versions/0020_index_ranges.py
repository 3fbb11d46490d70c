"""What was seen in Milvus when an index was compared with it stays known.

Revision: 0020, after 0021.
Compatible with workers of the previous release: yes. They do not announce what they write; counts
and the digest of live keys show it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "index_range",
        sa.Column("index_id", sa.BigInteger(), nullable=False, comment="The index version."),
        sa.Column(
            "range",
            sa.SmallInteger(),
            nullable=False,
            comment="The first byte of its keys, 0 to 255.",
        ),
        sa.Column(
            "live", sa.BigInteger(), nullable=False, comment="Live keys, each seen in Milvus."
        ),
        sa.Column(
            "digest",
            sa.BigInteger(),
            nullable=False,
            comment="XOR of hashtextextended(key, 0) over these keys.",
        ),
        sa.Column(
            "rows",
            sa.BigInteger(),
            nullable=False,
            comment="Rows of Milvus in the range; more than live where nobody owns some.",
        ),
        sa.Column(
            "incarnation",
            sa.Text(),
            nullable=True,
            comment="The start of Milvus that they were seen under; empty if it does not tell.",
        ),
        sa.Column(
            "writes",
            sa.BigInteger(),
            nullable=True,
            comment="Writes that Milvus had counted by then; empty if it does not count.",
        ),
        sa.Column(
            "verified_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When they were seen.",
        ),
        sa.CheckConstraint("range BETWEEN 0 AND 255", name=op.f("ck_index_range_range")),
        sa.CheckConstraint("live >= 0 AND rows >= live", name=op.f("ck_index_range_counts")),
        sa.ForeignKeyConstraint(
            ["index_id"],
            ["index.id"],
            name=op.f("fk_index_range_index_id_index"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("index_id", "range", name=op.f("pk_index_range")),
        comment="Ranges of keys whose live vectors were all seen in Milvus.",
    )


def downgrade() -> None:
    op.drop_table("index_range")
