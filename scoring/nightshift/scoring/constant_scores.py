"""Detects a broken model by its scores: many distinct pairs that all have the same one."""

from collections.abc import Collection, Hashable

from nightshift.schema.errors import ModelError

__all__ = ["refuse_equal_values"]

# So many distinct pairs with one value are no coincidence.
_SUSPICIOUS_PAIRS = 8


def refuse_equal_values(values: Collection[Hashable], n_distinct: int, statement: str) -> None:
    """Refuse values that are the same for many distinct pairs.

    Args:
        values: One for each pair.
        n_distinct: Pairs that differ in their content.
        statement: What is equal, for the message; follows the number of pairs.

    Raises:
        ModelError: Eight or more distinct pairs all have the same value.
    """
    if n_distinct >= _SUSPICIOUS_PAIRS and len(set(values)) == 1:
        raise ModelError(
            f"{n_distinct} {statement}: the model does not tell them apart; check its weights, or "
            "try float32"
        )
