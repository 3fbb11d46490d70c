"""Catalogues have revisions: contents are immutable, items have versions, runs pin a revision.

In revision 1 of a catalogue all items that were ever imported are live, as they are stored. Where
some are gone, they leave in revision 2. Existing runs are pinned to revision 1, so that their
results show all their items. Embeddings whose key is not of the item's present content are stale
and are dropped.

Revision: 0018, after 0019.
Compatible with workers of the previous release: no; stop them before the upgrade.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0019"
branch_labels = None
depends_on = None

_CURRENT = 2_147_483_647
_HASHES = ("text_hash", "image_hash", "content_hash")

# Table or column, its comment, and the comment before.
_NEW_COMMENTS = (
    (
        "TABLE item",
        "One thing of a catalogue by its id; item_version holds what it consists of.",
        "One thing of a catalogue: ordered typed parts and metadata.",
    ),
    (
        "COLUMN item.import_id",
        "The import that first brought it from its present source.",
        "The import that last changed it, or first brought it from its present source.",
    ),
    (
        "TABLE embedding",
        "The vectors of items in an index; Milvus holds the numbers.",
        "The live vector of an item in an index; Milvus holds the numbers.",
    ),
)


def upgrade() -> None:
    _create_revision()
    _create_content()
    _create_item_version()
    for statement in (_FILL_CONTENT, _FILL_REVISION, _FILL_REMOVAL, _FILL_VERSIONS):
        op.execute(statement)
    _key_embeddings_by_content()
    op.add_column(
        "run",
        sa.Column(
            "revision",
            sa.Integer(),
            comment="The revision of the catalogue that it reads, and no other.",
        ),
    )
    op.execute("UPDATE run SET revision = 1")
    op.alter_column("run", "revision", nullable=False)
    _add_content_of_candidates()
    for column in ("parts", *_HASHES, "metadata", "state", "updated_at"):
        op.drop_column("item", column)
    for target, comment, _ in _NEW_COMMENTS:
        op.execute(f"COMMENT ON {target} IS '{comment}'")


def downgrade() -> None:
    for target, _, comment in _NEW_COMMENTS:
        op.execute(f"COMMENT ON {target} IS '{comment}'")
    _restore_item_columns()
    _key_embeddings_by_item()
    op.drop_column("candidate", "content_id")
    op.drop_column("run", "revision")
    for table in ("item_version", "content", "revision"):
        op.drop_table(table)


def _create_revision() -> None:
    op.create_table(
        "revision",
        sa.Column("catalog_id", sa.BigInteger(), nullable=False, comment="The catalogue."),
        sa.Column(
            "number",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="Counts from 1 in each catalogue.",
        ),
        sa.Column(
            "import_id",
            sa.BigInteger(),
            comment="The import that made it; empty for a rollback, and where an earlier release "
            "imported.",
        ),
        sa.Column(
            "rolled_back_to",
            sa.Integer(),
            comment="The revision whose state it has; empty unless it is a rollback.",
        ),
        _count("items", "Items that are live in it."),
        _count("added", "Items that are live in it and were not in the revision before."),
        _count("changed", "Items that are live in both and differ in content or metadata."),
        _count("removed", "Items that were live in the revision before."),
        _time("created_at", "When it was made."),
        sa.PrimaryKeyConstraint("catalog_id", "number", name=op.f("pk_revision")),
        sa.ForeignKeyConstraint(
            ["catalog_id"],
            ["catalog.id"],
            name=op.f("fk_revision_catalog_id_catalog"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["catalog_import.id"],
            name=op.f("fk_revision_import_id_catalog_import"),
            ondelete="SET NULL",
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_revision_number")),
        sa.CheckConstraint(
            "least(items, added, changed, removed) >= 0", name=op.f("ck_revision_counts")
        ),
        sa.CheckConstraint("rolled_back_to < number", name=op.f("ck_revision_rolled_back_to")),
        comment="A state of a catalogue: what an import or a rollback left.",
    )
    op.create_index(op.f("ix_revision_import_id"), "revision", ["import_id"])


def _create_content() -> None:
    op.create_table(
        "content",
        _id(),
        sa.Column(
            "digest",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 of the parts as text, addresses included.",
        ),
        sa.Column("parts", JSONB(), nullable=False, comment=_PARTS),
        *_hash_columns(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_content")),
        sa.UniqueConstraint("digest", name=op.f("uq_content_digest")),
        sa.CheckConstraint("jsonb_array_length(parts) > 0", name=op.f("ck_content_has_parts")),
        comment="What items consist of: ordered typed parts. Never changed, and shared.",
    )


def _create_item_version() -> None:
    op.create_table(
        "item_version",
        sa.Column("item_id", sa.BigInteger(), nullable=False, comment="The item."),
        sa.Column(
            "first_revision",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="The first revision of its catalogue that has it.",
        ),
        sa.Column(
            "last_revision",
            sa.Integer(),
            server_default=str(_CURRENT),
            nullable=False,
            comment=f"The last one; {_CURRENT} while no later revision has replaced it.",
        ),
        sa.Column("content_id", sa.BigInteger(), nullable=False, comment="What it consists of."),
        _metadata(),
        sa.PrimaryKeyConstraint("item_id", "first_revision", name=op.f("pk_item_version")),
        sa.ForeignKeyConstraint(
            ["item_id"],
            ["item.id"],
            name=op.f("fk_item_version_item_id_item"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["content_id"], ["content.id"], name=op.f("fk_item_version_content_id_content")
        ),
        sa.CheckConstraint(
            "first_revision BETWEEN 1 AND last_revision", name=op.f("ck_item_version_revisions")
        ),
        comment="An item as it is in a range of revisions; live in those, gone in others.",
    )
    op.create_index(
        "uq_item_version_current",
        "item_version",
        ["item_id"],
        unique=True,
        postgresql_where=sa.text(f"last_revision = {_CURRENT}"),
    )
    op.create_index(op.f("ix_item_version_content_id"), "item_version", ["content_id"])


def _add_content_of_candidates() -> None:
    op.add_column(
        "candidate",
        sa.Column(
            "content_id",
            sa.BigInteger(),
            comment="What it consists of in the revision of the run, by content.id.",
        ),
    )
    op.execute(
        "UPDATE candidate SET content_id = v.content_id FROM item_version v "
        "WHERE v.item_id = candidate.item_id"
    )
    # Of catalogues that were deleted: nothing can show them.
    op.execute("DELETE FROM candidate WHERE content_id IS NULL")
    op.alter_column("candidate", "content_id", nullable=False)


def _key_embeddings_by_content() -> None:
    op.execute(_DROP_STALE_EMBEDDINGS)
    op.add_column(
        "embedding",
        sa.Column(
            "content",
            sa.LargeBinary(),
            comment="SHA-256 of what was embedded: text_hash, image_hash or content_hash of its "
            "content, by the parts of the index.",
        ),
    )
    op.execute(_FILL_EMBEDDING_CONTENT)
    op.alter_column("embedding", "content", nullable=False)
    op.drop_constraint(op.f("pk_embedding"), "embedding")
    op.drop_index("ix_embedding_key", "embedding")
    op.create_primary_key(op.f("pk_embedding"), "embedding", ["index_id", "key"])
    op.create_index("ix_embedding_item_id", "embedding", ["item_id", "index_id"])


def _key_embeddings_by_item() -> None:
    # The former tables hold one vector of an item: that of its present content.
    op.execute(_DROP_OTHER_EMBEDDINGS)
    op.drop_index("ix_embedding_item_id", "embedding")
    op.drop_constraint(op.f("pk_embedding"), "embedding")
    op.create_primary_key(op.f("pk_embedding"), "embedding", ["index_id", "item_id"])
    op.create_index("ix_embedding_key", "embedding", ["index_id", "key"], unique=True)
    op.drop_column("embedding", "content")


def _restore_item_columns() -> None:
    op.add_column("item", sa.Column("parts", JSONB(), comment=_PARTS))
    for hash_column in _hash_columns():
        hash_column.nullable = True
        op.add_column("item", hash_column)
    op.add_column("item", _metadata())
    op.add_column(
        "item",
        sa.Column(
            "state",
            sa.Enum("live", "gone", name="itemstate", native_enum=False, length=16),
            server_default="live",
            nullable=False,
            comment="live, or gone: no longer in its source, kept for old results, never searched.",
        ),
    )
    op.add_column("item", _time("updated_at", "When content, metadata or state last changed."))
    op.execute(_FILL_ITEM)
    for column in ("parts", "content_hash"):
        op.alter_column("item", column, nullable=False)
    op.create_check_constraint(op.f("ck_item_has_parts"), "item", "jsonb_array_length(parts) > 0")
    op.create_check_constraint(op.f("ck_item_itemstate"), "item", "state IN ('live', 'gone')")


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False, comment="Row id.")


def _count(name: str, comment: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, comment=comment)


def _time(name: str, comment: str) -> sa.Column[datetime]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.func.now(),
        nullable=False,
        comment=comment,
    )


def _metadata() -> sa.Column[JSONB]:
    return sa.Column(
        "metadata",
        JSONB(),
        server_default="{}",
        nullable=False,
        comment="What came along; no model sees it.",
    )


def _hash_columns() -> list[sa.Column[bytes]]:
    comments = ("of the texts alone.", "of the images alone.", "of all parts in order.")
    return [
        sa.Column(
            name,
            sa.LargeBinary(),
            nullable=name != "content_hash",
            comment=f"SHA-256 {comment}",
        )
        for name, comment in zip(_HASHES, comments, strict=True)
    ]


_PARTS = '[{"kind":"text","text":…} | {"kind":"image","uri":…,"sha256":…}, …]'

# Stores each distinct content once.
_FILL_CONTENT = """
INSERT INTO content (digest, parts, text_hash, image_hash, content_hash)
SELECT DISTINCT ON (digest) digest, parts, text_hash, image_hash, content_hash
FROM (SELECT *, sha256(convert_to(parts::text, 'UTF8')) AS digest FROM item) AS hashed
ORDER BY digest, id
"""

# Revision 1 of a catalogue has all items that were ever imported.
_FILL_REVISION = """
INSERT INTO revision (catalog_id, number, items, added, changed, removed, created_at)
SELECT catalog.id, 1, count(item.id), count(item.id), 0, 0,
    coalesce(max(item.updated_at), catalog.created_at)
FROM catalog LEFT JOIN item ON item.catalog_id = catalog.id
GROUP BY catalog.id
HAVING count(item.id) > 0 OR EXISTS (SELECT FROM run WHERE run.catalog_id = catalog.id)
"""

# Those that are gone leave in revision 2.
_FILL_REMOVAL = """
INSERT INTO revision (catalog_id, number, items, added, changed, removed, created_at)
SELECT catalog_id, 2, count(*) FILTER (WHERE state = 'live'), 0, 0,
    count(*) FILTER (WHERE state = 'gone'), max(updated_at)
FROM item GROUP BY catalog_id HAVING count(*) FILTER (WHERE state = 'gone') > 0
"""

# Gives each item its version.
_FILL_VERSIONS = f"""
INSERT INTO item_version (item_id, first_revision, last_revision, content_id, metadata)
SELECT item.id, 1, CASE item.state WHEN 'live' THEN {_CURRENT} ELSE 1 END, content.id,
    item.metadata
FROM item JOIN content ON content.digest = sha256(convert_to(item.parts::text, 'UTF8'))
"""


_ITEM_CONTENT = (
    "(CASE i.parts WHEN 'text' THEN item.text_hash WHEN 'image' THEN item.image_hash "
    "ELSE item.content_hash END)"
)

# As `schema.identity.embedding_key` has it at this revision.
_FIELDS = (
    "convert_to(item.external_id, 'UTF8')",
    _ITEM_CONTENT,
    "convert_to(i.embedder_fingerprint, 'UTF8')",
)
_FRAMED = (f"int8send(octet_length({field})::bigint) || {field}" for field in _FIELDS)
_KEY = f"encode(sha256({' || '.join(_FRAMED)}), 'hex')"

# Drops embeddings of other contents than the items have now.
_DROP_STALE_EMBEDDINGS = f"""
DELETE FROM embedding e USING item, "index" i
WHERE item.id = e.item_id AND i.id = e.index_id AND e.key IS DISTINCT FROM {_KEY}
"""

_FILL_EMBEDDING_CONTENT = f"""
UPDATE embedding e SET content = {_ITEM_CONTENT} FROM item, "index" i
WHERE item.id = e.item_id AND i.id = e.index_id
"""

# Drops embeddings of other contents than the current ones, and of items that are gone.
_DROP_OTHER_EMBEDDINGS = f"""
DELETE FROM embedding e USING item, "index" i
WHERE item.id = e.item_id AND i.id = e.index_id
    AND (item.state = 'gone' OR e.content IS DISTINCT FROM {_ITEM_CONTENT})
"""

# Gives each item the content of its last version.
_FILL_ITEM = f"""
UPDATE item SET parts = content.parts, text_hash = content.text_hash,
    image_hash = content.image_hash, content_hash = content.content_hash, metadata = v.metadata,
    state = CASE v.last_revision WHEN {_CURRENT} THEN 'live' ELSE 'gone' END,
    updated_at = revision.created_at
FROM (SELECT DISTINCT ON (item_id) * FROM item_version ORDER BY item_id, first_revision DESC) AS v
JOIN content ON content.id = v.content_id JOIN item AS this ON this.id = v.item_id
JOIN revision ON revision.catalog_id = this.catalog_id AND revision.number =
    CASE v.last_revision WHEN {_CURRENT} THEN v.first_revision ELSE v.last_revision + 1 END
WHERE item.id = v.item_id
"""
