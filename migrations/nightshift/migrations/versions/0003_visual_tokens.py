"""Visual tokens: sets, shards and records, and the runs that make them.

Revision: 0003, after 0002.
Compatible with workers of the previous release: yes; they do not serve the new stages.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RUN_COMMENT = "One night's work: an index build or a re-ranking of a query set."
_OLD_STAGES = "'embed', 'search', 'score', 'rank'"


def upgrade() -> None:
    op.create_table(
        "token_set",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("catalog_id", sa.BigInteger(), nullable=False),
        sa.Column("vision_fingerprint", sa.Text(), nullable=False),
        sa.Column(
            "codec", sa.Text(), nullable=False, comment="Reduce, then quantise, such as pool2+int8."
        ),
        sa.Column(
            "width",
            sa.BigInteger(),
            nullable=False,
            comment="Numbers of a token before it is coded.",
        ),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column(
            "address",
            sa.Text(),
            nullable=False,
            comment="Folder of its shards: a path or fsspec URL.",
        ),
        sa.Column(
            "codebook",
            sa.LargeBinary(),
            nullable=True,
            comment="Trained centroids as a numpy file, where the codec has any.",
        ),
        sa.Column("codebook_digest", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("width > 0", name=op.f("ck_token_set_width")),
        sa.CheckConstraint(
            "(codebook IS NULL) = (codebook_digest IS NULL)", name=op.f("ck_token_set_codebook")
        ),
        sa.ForeignKeyConstraint(
            ["catalog_id"],
            ["catalog.id"],
            name=op.f("fk_token_set_catalog_id_catalog"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["vision_fingerprint"],
            ["model.fingerprint"],
            name=op.f("fk_token_set_vision_fingerprint_model"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_set")),
        sa.UniqueConstraint(
            "catalog_id",
            "vision_fingerprint",
            "codec",
            name=op.f("uq_token_set_catalog_id_vision_fingerprint_codec"),
        ),
        comment="Visual tokens of a catalogue's pictures by one vision tower and codec.",
    )
    op.create_table(
        "token_shard",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("token_set_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="Below the address of its set."),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False, comment="Of the whole file."),
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="The run that wrote it."),
        sa.ForeignKeyConstraint(
            ["token_set_id"],
            ["token_set.id"],
            name=op.f("fk_token_shard_token_set_id_token_set"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_shard")),
        comment="One immutable file of many records, written by one job.",
    )
    op.create_index(op.f("ix_token_shard_token_set_id"), "token_shard", ["token_set_id"])
    op.create_table(
        "token_record",
        sa.Column("token_set_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "content",
            sa.LargeBinary(),
            nullable=False,
            comment="image_hash of the items and queries that show these pictures.",
        ),
        sa.Column("shard_id", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False, comment="Byte of the shard."),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column(
            "digest", sa.LargeBinary(), nullable=False, comment="BLAKE2b of the record, 16 bytes."
        ),
        sa.Column("n_images", sa.BigInteger(), nullable=False),
        sa.Column(
            "n_tokens",
            sa.BigInteger(),
            nullable=False,
            comment="Of all its pictures, before they are reduced.",
        ),
        sa.ForeignKeyConstraint(
            ["shard_id"],
            ["token_shard.id"],
            name=op.f("fk_token_record_shard_id_token_shard"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["token_set_id"],
            ["token_set.id"],
            name=op.f("fk_token_record_token_set_id_token_set"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_set_id", "content", name=op.f("pk_token_record")),
        comment="Where the visual tokens of one content's pictures lie.",
    )
    op.create_index(op.f("ix_token_record_shard_id"), "token_record", ["shard_id"])
    op.add_column(
        "run",
        sa.Column(
            "token_set_id",
            sa.BigInteger(),
            nullable=True,
            comment="The visual tokens that it makes, or that its score jobs read.",
        ),
    )
    op.create_foreign_key(
        op.f("fk_run_token_set_id_token_set"),
        "run",
        "token_set",
        ["token_set_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.alter_column("run", "index_id", nullable=True)
    _replace_check("run", "rerank_has_queries", "(kind = 'rerank') = (query_set_id IS NOT NULL)")
    op.create_check_constraint(
        op.f("ck_run_tokens_have_no_index"), "run", "(kind = 'tokens') = (index_id IS NULL)"
    )
    _replace_check("run", "runkind", "kind IN ('index', 'rerank', 'tokens')")
    for table in ("run", "job"):
        _replace_check(table, "stage", f"stage IN ({_OLD_STAGES}, 'codebook', 'tokens')")
    # The first tables went without this one.
    op.create_check_constraint(
        op.f("ck_model_kind"), "model", "kind IN ('embedder', 'scorer', 'vision')"
    )
    op.create_table_comment(
        "run",
        "One night's work: an index build, a token build or a re-ranking.",
        existing_comment=_RUN_COMMENT,
    )
    op.alter_column("failure", "stage", comment="import, or the stage of a run")


def downgrade() -> None:
    op.execute("DELETE FROM run WHERE kind = 'tokens'")
    op.alter_column("failure", "stage", comment="import, embed, search, score or rank")
    op.create_table_comment("run", _RUN_COMMENT)
    for table in ("run", "job"):
        _replace_check(table, "stage", f"stage IN ({_OLD_STAGES})")
    _replace_check("run", "runkind", "kind IN ('index', 'rerank')")
    op.drop_constraint(op.f("ck_run_tokens_have_no_index"), "run", type_="check")
    _replace_check("run", "rerank_has_queries", "(kind = 'index') = (query_set_id IS NULL)")
    op.alter_column("run", "index_id", nullable=False)
    op.drop_constraint(op.f("fk_run_token_set_id_token_set"), "run", type_="foreignkey")
    op.drop_column("run", "token_set_id")
    op.drop_table("token_record")
    op.drop_table("token_shard")
    op.drop_table("token_set")
    op.drop_constraint(op.f("ck_model_kind"), "model", type_="check")
    op.execute("DELETE FROM model WHERE kind = 'vision'")


def _replace_check(table: str, name: str, condition: str) -> None:
    # On a partitioned table both reach the partitions.
    constraint = op.f(f"ck_{table}_{name}")
    op.drop_constraint(constraint, table, type_="check")
    op.create_check_constraint(constraint, table, condition)
