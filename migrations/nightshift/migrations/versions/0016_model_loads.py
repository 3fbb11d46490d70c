"""Each result names the load of the weights that it comes of.

Revision: 0016, after 0015.
Compatible with workers of the previous release: yes; what they write names no load.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TABLES = ("embedding", "candidate", "pair_score", "token_shard", "answer")
# What names a list of candidates: each content once, where it comes first.
_LIST_DIGEST = """
CREATE FUNCTION list_digest(contents bytea[]) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(string_agg(content, ''::bytea ORDER BY place)) FROM (
        SELECT content, min(place) AS place
        FROM unnest(contents) WITH ORDINALITY AS t(content, place)
        WHERE content IS NOT NULL GROUP BY content) AS member
$$
"""
_COMMENT = "The load in model_load that it comes of; empty where nobody knows."


def upgrade() -> None:
    op.create_table(
        "model_load",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Row id."
        ),
        sa.Column(
            "worker_id", sa.Text(), nullable=False, comment="The worker, as worker.id named it."
        ),
        sa.Column(
            "spec",
            sa.Text(),
            nullable=False,
            comment="The model for which they were loaded first.",
        ),
        sa.Column(
            "fingerprint",
            sa.Text(),
            nullable=False,
            comment="Of that model; others may share its weights.",
        ),
        sa.Column(
            "files",
            JSONB(),
            nullable=False,
            comment="Of each file path, device, inode, size, and times of change in ns since 1970.",
        ),
        sa.Column(
            "loaded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When they were in memory.",
        ),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the worker saw that a file had changed under it; empty where none did.",
        ),
        sa.Column("changed_file", sa.Text(), nullable=True, comment="The file that changed."),
        sa.Column(
            "dropped_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When an operator deleted what came of it; empty unless one did.",
        ),
        sa.CheckConstraint("jsonb_typeof(files) = 'array'", name=op.f("ck_model_load_files")),
        sa.CheckConstraint(
            "(changed_at IS NULL) = (changed_file IS NULL)", name=op.f("ck_model_load_changed")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_load")),
        comment="Weights that one worker loaded; each result names its load.",
    )
    op.execute(_LIST_DIGEST)
    for table in _TABLES:
        op.add_column(table, sa.Column("load_id", sa.BigInteger(), nullable=True, comment=_COMMENT))


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "load_id")
    op.execute("DROP FUNCTION list_digest(bytea[])")
    op.drop_table("model_load")
