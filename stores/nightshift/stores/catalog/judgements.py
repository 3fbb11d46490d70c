"""Relevance judgements by row ids."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

__all__ = ["relevant_items"]


def relevant_items(
    connection: Connection, catalog_id: int, query_ids: Sequence[int]
) -> dict[int, frozenset[int]]:
    """Relevant items of a catalogue by query; queries without judgements are left out."""
    rows = connection.execute(_RELEVANT_ITEMS, {"queries": list(query_ids), "catalog": catalog_id})
    return {
        int(row.query_id): frozenset(
            int(item_id) for item_id in row.items or () if item_id is not None
        )
        for row in rows
    }


# Collects the relevant items of each judged query; a judged item that the catalogue lacks is null.
_RELEVANT_ITEMS = text("""
    SELECT q.id AS query_id, array_agg(i.id) FILTER (WHERE r.relevance > 0) AS items
    FROM query q
    JOIN qrel r ON r.query_set_id = q.query_set_id AND r.query_external_id = q.external_id
    LEFT JOIN item i ON i.external_id = r.item_external_id AND i.catalog_id = :catalog
    WHERE q.id = ANY(:queries) GROUP BY q.id
""")
