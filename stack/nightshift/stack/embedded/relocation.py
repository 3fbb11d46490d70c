"""Rewrite addresses in Postgres that name files of a data directory, after it was moved."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnClause,
    Connection,
    TableClause,
    Text,
    Update,
    cast,
    column,
    func,
    table,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

__all__ = ["rewrite_addresses"]

#: Lists the columns of all tables that may hold such addresses: images in `parts` (JSON), folders
#: of visual tokens in `address`, imported sources in `source`.
_ADDRESS_COLUMNS = text(
    """
    SELECT table_name, column_name, data_type = 'jsonb' AS is_json
    FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND is_generated = 'NEVER'
      AND ((column_name = 'parts' AND data_type = 'jsonb')
        OR (column_name IN ('address', 'source') AND data_type IN ('text', 'character varying')))
    ORDER BY table_name, column_name
"""
)

#: Corrects the digests of contents whose addresses changed; where another content has that digest,
#: which a later import then uses, it stays.
_REFRESH_DIGESTS = text(
    """
    UPDATE content SET digest = now_is.digest
    FROM (SELECT id, sha256(convert_to(parts::text, 'UTF8')) AS digest FROM content) AS now_is
    WHERE content.id = now_is.id AND content.digest <> now_is.digest
        AND NOT EXISTS (SELECT FROM content other WHERE other.digest = now_is.digest)
"""
)


def rewrite_addresses(connection: Connection, old: Path, new: Path) -> int:
    """Replace the directory `old` by `new` in every address; may be repeated.

    Images are identified by their bytes, so no key and no score changes.

    Args:
        connection: A transaction of the user that owns the tables.
        old: The former path of the data directory.
        new: Its present path.

    Returns:
        The number of changed rows.
    """
    changed = 0
    for name, column_name, is_json in connection.execute(_ADDRESS_COLUMNS).tuples().all():
        addresses = column(column_name, JSONB if is_json else Text)
        rows = _rewrite_statement(table(name, addresses), addresses, old, new)
        changed += connection.execute(rows).rowcount
        if name == "content":
            connection.execute(_REFRESH_DIGESTS)
    return changed


def _rewrite_statement(
    rows: TableClause, addresses: ColumnClause[Any], old: Path, new: Path
) -> Update:
    if not isinstance(addresses.type, JSONB):
        in_place = func.strpos(addresses, f"{old}/") == 1
        rewritten = func.replace(addresses, f"{old}/", f"{new}/")
        return update(rows).where(in_place).values({addresses: rewritten})
    # In JSON the path follows its key. A caption that mentions it has its quotes escaped.
    old_uri, new_uri = (
        f'"uri": {json.dumps(f"{path}/", ensure_ascii=False)[:-1]}' for path in (old, new)
    )
    as_text = cast(addresses, Text)
    rewritten_json = cast(func.replace(as_text, old_uri, new_uri), JSONB)
    return update(rows).where(func.strpos(as_text, old_uri) > 0).values({addresses: rewritten_json})
