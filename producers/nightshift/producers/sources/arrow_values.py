"""Values of Arrow as Python's; an odd one becomes a text or nothing, and its row stays."""

from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nightshift.schema.errors import InputError

__all__ = ["row_of", "unpacked_bytes"]

#: Of a Python object, beside its content.
_OBJECT_BYTES = 48


def row_of(batch: pa.RecordBatch, at: int) -> dict[str, Any] | InputError:
    """One row of a batch, cell by cell; an error where a text of it is not UTF-8."""
    try:
        return {
            name: _value(batch.column(column)[at]) for column, name in enumerate(batch.schema.names)
        }
    except UnicodeDecodeError:
        return InputError("a text of this row is not UTF-8; convert the file", "not_utf8")


def unpacked_bytes(values: pa.RecordBatch | pa.Array) -> int:
    """About how many bytes values take as Python objects."""
    if isinstance(values, pa.RecordBatch):
        return sum(map(unpacked_bytes, values.columns))
    own = _OBJECT_BYTES * len(values)
    inner = _inner(values)
    if inner:
        return own + sum(map(unpacked_bytes, inner))
    lengths = _lengths(values.dictionary) if isinstance(values, pa.DictionaryArray) else None
    if lengths is None:
        return own + int(values.nbytes)
    return own + int(pc.sum(pc.take(lengths, values.indices)).as_py() or 0)


def _inner(values: pa.Array) -> list[pa.Array]:
    """Values inside nested ones; none where they are not nested."""
    if isinstance(values, pa.ExtensionArray):
        return [values.storage]
    if isinstance(values, pa.StructArray):
        return list(values.flatten())
    if isinstance(values, pa.MapArray):
        first, last = (values.offsets[at].as_py() for at in (0, -1))
        return [side.slice(first, last - first) for side in (values.keys, values.items)]
    if isinstance(values, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        return [values.flatten()]
    return []


def _lengths(dictionary: pa.Array) -> pa.Array | None:
    try:
        return pc.binary_length(dictionary).cast(pa.int64())
    except pa.ArrowException:
        return None


def _value(scalar: pa.Scalar) -> Any:  # noqa: ANN401 - any value
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except Exception:  # noqa: BLE001 - dates, zones, numbers: whatever Python cannot hold
        return _odd(scalar)


def _odd(scalar: pa.Scalar) -> Any:  # noqa: ANN401 - any value
    if isinstance(scalar, pa.StructScalar):
        names = [scalar.type.field(at).name for at in range(scalar.type.num_fields)]
        return {name: _value(scalar[at]) for at, name in enumerate(names)}
    if isinstance(scalar, pa.ListScalar):
        return [_value(inner) for inner in scalar.values or ()]
    if isinstance(scalar, pa.DictionaryScalar | pa.ExtensionScalar):
        return _value(scalar.value)
    return _text(scalar)


def _text(scalar: pa.Scalar) -> str | None:
    with suppress(Exception):
        return str(scalar.cast(pa.string()).as_py())
    with suppress(Exception):
        return str(scalar.value)
    return None
