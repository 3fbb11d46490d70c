"""Bytes of the vectors of indexes, computed from counts: Milvus does not say them."""

from sqlalchemy import Connection, text

__all__ = ["KEY_BYTES", "NUMBER_BYTES", "vector_bytes"]

#: Of the key of a vector, and of a number in it.
KEY_BYTES, NUMBER_BYTES = 64, 4


def vector_bytes(connection: Connection) -> int:
    """Bytes of all live vectors with their keys, before Milvus indexes them."""
    values = {"key": KEY_BYTES, "number": NUMBER_BYTES}
    return int(connection.execute(_VECTOR_BYTES, values).scalar_one())


# Adds up the numbers and keys of all live vectors.
_VECTOR_BYTES = text("""
    SELECT coalesce(sum(i.dim * :number + :key), 0)
    FROM embedding JOIN "index" i ON i.id = embedding.index_id
""")
