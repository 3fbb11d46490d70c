"""Slices of a run's queries, so that no transaction covers all pairs of a large run."""

from sqlalchemy import Connection, text

__all__ = ["ALL_QUERIES", "IN_QUERIES", "last_query_of_slice", "query_range"]

#: SQL condition on candidates `c`: their queries lie between two ids.
IN_QUERIES = " AND c.query_id BETWEEN :first_query AND :last_query"

#: The ids of all queries.
ALL_QUERIES = (0, 2**63 - 1)


def query_range(queries: tuple[int, int]) -> dict[str, int]:
    """The parameters of `IN_QUERIES`: the first and the last id."""
    first, last = queries
    return {"first_query": first, "last_query": last}


def last_query_of_slice(connection: Connection, run_id: int, after: int, size: int) -> int | None:
    """The last of the next queries of a run that have candidates, by id.

    Args:
        connection: Postgres.
        run_id: The run.
        after: Only queries with a greater id.
        size: Queries of a slice.

    Returns:
        None where there is none.
    """
    last = connection.execute(
        _LAST_QUERY_OF_SLICE, {"run": run_id, "after": after, "size": size}
    ).scalar()
    return None if last is None else int(last)


# Finds the end of a slice of the queries that have candidates.
_LAST_QUERY_OF_SLICE = text("""
    SELECT max(query_id) FROM (SELECT query_id FROM candidate
        WHERE run_id = :run AND query_id > :after AND coarse_rank = 1
        ORDER BY query_id LIMIT :size) AS slice
""")
