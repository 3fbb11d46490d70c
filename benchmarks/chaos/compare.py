"""The results of two nights, row by row: what one lost, doubled, or computed differently."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text

from nightshift.results.calibration import calibration
from nightshift.stores.postgres.database import Database

__all__ = ["Comparison", "Results", "compare", "read_results"]

#: Scores count as equal up to this difference.
TOLERANCE = 1e-5

_TABLES = {
    "vectors": """
        SELECT i.external_id, e.key FROM embedding e JOIN item i ON i.id = e.item_id
        JOIN run ON run.index_id = e.index_id WHERE run.id = :run ORDER BY i.external_id""",
    "visual tokens": """
        SELECT i.external_id, encode(r.digest, 'hex'), r.n_images, r.n_tokens
        FROM run JOIN token_record r ON r.token_set_id = run.token_set_id
        JOIN item i ON i.catalog_id = run.catalog_id
        JOIN item_version v ON v.item_id = i.id
            AND run.revision BETWEEN v.first_revision AND v.last_revision
        JOIN content ON content.id = v.content_id AND content.image_hash = r.content
        WHERE run.id = :run ORDER BY i.external_id""",
    "rankings": """
        SELECT query, final_rank, item, coarse_rank, decided_by::text, fired, fired_layer,
            tie_group, tie_size, coarse_score, margin, probability, entropy
        FROM v_ranking WHERE run_id = :run ORDER BY query, final_rank""",
    "pair scores": """
        SELECT q.external_id, i.external_id, p.pair_key, p.fired, p.fired_layer, p.margin,
            p.logit_positive, p.logit_negative, p.logsumexp, p.entropy, p.uncertainty,
            p.plain_margin
        FROM v_pair_score p JOIN query q ON q.id = p.query_id JOIN item i ON i.id = p.item_id
        WHERE p.run_id = :run ORDER BY q.external_id, i.external_id""",
}

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Results of a run, table by table."""

    #: Table → rows in their order; the first two columns name a row.
    tables: dict[str, list[Row]]
    #: The merged statistics, flat: path → value.
    calibration: dict[str, object]
    #: Failures of the runs, notices apart.
    failures: int


@dataclass(slots=True, kw_only=True)
class Comparison:
    """Differences between a disturbed run and a calm one."""

    lost: int = 0
    duplicated: int = 0
    max_abs_diff: float = 0.0
    #: The first few differences, in words.
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Same rows, same order, scores within the tolerance."""
        return not self.differences and self.max_abs_diff <= TOLERANCE


def read_results(database: Database, run_id: int) -> Results:
    """Read what a re-ranking run and its index hold."""
    with database.begin() as connection:
        tables = {
            name: [
                tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)
                for row in connection.execute(text(query), {"run": run_id})
            ]
            for name, query in _TABLES.items()
        }
        failures = connection.execute(text("SELECT count(*) FROM failure WHERE fatal")).scalar_one()
    merged = calibration(database, run_id).to_json()
    return Results(tables=tables, calibration=dict(_flatten(merged)), failures=int(failures))


def compare(calm: Results, disturbed: Results) -> Comparison:
    """Hold a disturbed night against a calm one of the same seed."""
    results = Comparison()
    for table, expected in calm.tables.items():
        _compare_table(results, table, expected, disturbed.tables[table])
    if disturbed.failures != calm.failures:
        results.differences.append(f"{disturbed.failures} failures instead of {calm.failures}")
    if calm.calibration.keys() != disturbed.calibration.keys():
        results.differences.append("calibration: other fields")
    for path, value in calm.calibration.items():
        _compare_value(results, f"calibration {path}", value, disturbed.calibration.get(path))
    return results


def _compare_table(
    comparison: Comparison, table: str, expected: Sequence[Row], rows: Sequence[Row]
) -> None:
    wanted, present = Counter(map(_name, expected)), Counter(map(_name, rows))
    lost, surplus = (wanted - present).total(), (present - wanted).total()
    comparison.lost += lost
    comparison.duplicated += surplus
    if lost or surplus:
        comparison.differences.append(f"{table}: {lost} rows lost, {surplus} too many")
    if [_name(row) for row in expected] != [_name(row) for row in rows]:
        comparison.differences.append(f"{table}: other rows or another order")
        return
    for expected_row, row in zip(expected, rows, strict=True):
        for value, recorded in zip(expected_row[2:], row[2:], strict=True):
            _compare_value(comparison, f"{table} {_name(expected_row)}", value, recorded)


def _compare_value(comparison: Comparison, what: str, expected: object, actual: object) -> None:
    if isinstance(expected, float) and isinstance(actual, float):
        if math.isnan(expected) and math.isnan(actual):
            return
        comparison.max_abs_diff = max(comparison.max_abs_diff, abs(expected - actual))
    elif expected != actual:
        comparison.differences.append(f"{what}: {actual!r} instead of {expected!r}")


def _name(row: Row) -> Row:
    return row[:2]


def _flatten(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _flatten(inner, f"{path}[{position}]")
    else:
        yield path, value
