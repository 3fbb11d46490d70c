"""Imports are staged: one that is refused counts what it left out, and each knows its source.

Items belong to the source of the import that they name. Imports of earlier releases get the key of
their source where they were given an absolute path or an address; of a relative path nobody knows
the folder, and its key stays empty (`nightshift.stores.catalog.staging` says what follows).

Revision: 0014, after 0011.
Compatible with workers of the previous release: yes; they do not read imports.
"""

from pathlib import Path
from posixpath import normpath

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0011"
branch_labels = None
depends_on = None

_SUM = "finished_at IS NULL OR read = accepted + failed + unchanged"
_COUNTS = "read, accepted, failed, unchanged"
_SAW = "The import that last saw it."
_BROUGHT = "The import that last changed it, or first brought it from its present source."


def upgrade() -> None:
    op.add_column(
        "catalog_import",
        sa.Column(
            "source_key",
            sa.Text(),
            nullable=True,
            comment="The source by a name that all its spellings share; empty where an earlier "
            "release read a relative path.",
        ),
    )
    op.add_column(
        "catalog_import",
        sa.Column(
            "not_applied",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Good rows of an import that was refused or interrupted: none is in the "
            "catalogue.",
        ),
    )
    _replace_checks(f"{_SUM} + not_applied", f"{_COUNTS}, not_applied")
    op.alter_column("item", "import_id", comment=_BROUGHT, existing_comment=_SAW)
    connection = op.get_bind()
    for row in connection.execute(sa.text("SELECT id, source FROM catalog_import")).all():
        key = _key(row.source)
        if key is not None:
            connection.execute(
                sa.text("UPDATE catalog_import SET source_key = :key WHERE id = :id"),
                {"key": key, "id": row.id},
            )


def downgrade() -> None:
    op.alter_column("item", "import_id", comment=_SAW, existing_comment=_BROUGHT)
    # Earlier releases know no row that is neither in nor failed.
    op.execute(
        "UPDATE catalog_import SET read = read - not_applied, not_applied = 0 WHERE not_applied > 0"
    )
    _replace_checks(_SUM, _COUNTS)
    op.drop_column("catalog_import", "not_applied")
    op.drop_column("catalog_import", "source_key")


def _replace_checks(adds_up: str, counts: str) -> None:
    for name, condition in (("adds_up", adds_up), ("counts", f"least({counts}) >= 0")):
        constraint = op.f(f"ck_catalog_import_{name}")
        op.drop_constraint(constraint, "catalog_import", type_="check")
        op.create_check_constraint(constraint, "catalog_import", condition)


def _key(source: str) -> str | None:
    # As `stores.catalog.source_keys` had it at this revision; passwords are `***` already.
    path = Path(source.removeprefix("file://"))
    if path.is_absolute():
        return str(path.resolve() if path.is_dir() else path.parent.resolve() / path.name)
    if "://" not in source or "::" in source or "?" in source:
        return None
    scheme, _, rest = source.partition("://")
    authority, slash, inside = rest.partition("/")
    scheme = {"s3a": "s3", "gcs": "gs"}.get(scheme.lower(), scheme.lower())
    inside = normpath(f"/{inside}").lstrip("/") if slash else ""
    return f"{scheme}://{authority.rpartition('@')[2].lower()}/{inside}"
