"""The rows and pages that statements read, by the account of Postgres."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import event

from nightshift.stores.postgres.database import Database

__all__ = ["rows_read"]


def rows_read(database: Database, action: Callable[[], object]) -> Counter[str]:
    """Rows that the action's statements read, by table or partition; 0 for those only planned.

    The statements run a second time, under EXPLAIN ANALYZE, and are rolled back.
    """
    recorded: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        recorded.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    results: Counter[str] = Counter()
    with database.engine.connect() as connection:
        cursor = connection.connection.cursor()
        for statement, parameters in recorded:
            if statement.startswith("SET"):
                cursor.execute(statement)
                continue
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            for node in _nodes(cursor.fetchone()[0][0]["Plan"]):
                results[node["Relation Name"]] += _rows(node)
        connection.rollback()
    return results


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in plan:
        yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _rows(node: dict[str, Any]) -> int:
    dropped = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    each = node["Actual Rows"] + sum(node.get(name, 0) for name in dropped)
    return round(each * node["Actual Loops"])
