"""Images that imports have read, so that an unchanged one is not read again.

Revision: 0021, after 0017.
Compatible with workers of the previous release: yes; only imports use it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "known_image",
        sa.Column(
            "address_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 of its address, the place in an archive included; of an image "
            "without an address, of its digest.",
        ),
        sa.Column(
            "stamp",
            sa.Text(),
            nullable=False,
            comment="Size in bytes and time of change in ns since 1970 of its file; `bytes` "
            "without an address.",
        ),
        sa.Column("sha256", sa.LargeBinary(), nullable=False, comment="Of the bytes of the image."),
        sa.Column(
            "decoded",
            sa.Boolean(),
            nullable=False,
            comment="Whether it was decoded; otherwise only its digest is known.",
        ),
        sa.Column(
            "read_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When an import last read it.",
        ),
        sa.CheckConstraint(
            "length(address_hash) = 32 AND length(sha256) = 32", name=op.f("ck_known_image_digests")
        ),
        sa.PrimaryKeyConstraint("address_hash", name=op.f("pk_known_image")),
        comment="An image that an import has read; an unchanged one is not read again.",
    )


def downgrade() -> None:
    op.drop_table("known_image")
