"""Row dataclasses and the tables that they are read from."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import InstrumentedAttribute

from nightshift.schema.tables import Base

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["columns_of"]


def columns_of(
    row: "type[DataclassInstance]", table: type[Base]
) -> list[InstrumentedAttribute[Any]]:
    """The columns of a table that a row dataclass holds, found by the names of its fields.

    Args:
        row: Every field is named like a column.
        table: A table of the schema.

    Raises:
        AttributeError: A field has no column.
    """
    return [getattr(table, field.name) for field in fields(row)]
