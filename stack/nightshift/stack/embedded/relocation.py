"""Addresses in Postgres that name files of the data directory, after the directory has moved."""

import json
from pathlib import Path

from sqlalchemy import Connection, text

__all__ = ["rewrite_addresses"]

#: Columns that may hold such addresses, in whatever table: images in `parts` (JSON), folders of
#: tokens in `address`, what was imported in `source`.
_COLUMNS = """
    SELECT table_name, column_name, data_type = 'jsonb' AS is_json
    FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND is_generated = 'NEVER'
      AND ((column_name = 'parts' AND data_type = 'jsonb')
        OR (column_name IN ('address', 'source') AND data_type IN ('text', 'character varying')))
    ORDER BY table_name, column_name
"""


def rewrite_addresses(connection: Connection, old: Path, new: Path) -> int:
    """Let what named a file below the directory `old` name it below `new`; harmless when repeated.

    An image counts by its bytes, so no content and no score changes.

    Args:
        connection: A transaction of the owner of the tables.
        old: Where the data directory was.
        new: Where it is.

    Returns:
        How many rows were changed.
    """
    changed = 0
    for table, column, is_json in connection.execute(text(_COLUMNS)).tuples().all():
        changed += _rewrite(connection, f'"{table}"', f'"{column}"', is_json, (old, new))
    return changed


def _rewrite(
    connection: Connection, table: str, column: str, is_json: bool, places: tuple[Path, Path]
) -> int:
    # As JSON, the path follows its key: a caption that mentions it has its quotes escaped.
    old, new = (
        f'"uri": {json.dumps(f"{place}/", ensure_ascii=False)[:-1]}' if is_json else f"{place}/"
        for place in places
    )
    value, cast = (f"{column}::text", "::jsonb") if is_json else (column, "")
    where = f"strpos({value}, :old) {'> 0' if is_json else '= 1'}"
    done = connection.execute(
        text(f"UPDATE {table} SET {column} = replace({value}, :old, :new){cast} WHERE {where}"),
        {"old": old, "new": new},
    )
    return int(done.rowcount)
