"""Sizes of tables and of the database, as Postgres knows them without reading a row."""

from sqlalchemy import Connection, func, select, text

__all__ = ["database_bytes", "table_bytes"]


def table_bytes(connection: Connection) -> dict[str, int]:
    """Table → bytes on disk, its indexes, long values and partitions included."""
    return {row.name: int(row.bytes) for row in connection.execute(_TABLE_BYTES)}


def database_bytes(connection: Connection) -> int:
    """Bytes on disk of the database, the catalogues of Postgres included; not its log."""
    size = select(func.pg_database_size(func.current_database()))
    return int(connection.execute(size).scalar_one())


# Adds up the sizes of our tables, partitions under the name of their parent.
_TABLE_BYTES = text("""
    SELECT root.relname AS name, sum(pg_total_relation_size(c.oid)) AS bytes
    FROM pg_class c JOIN pg_class root ON root.oid = coalesce(pg_partition_root(c.oid), c.oid)
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    GROUP BY root.relname
""")
