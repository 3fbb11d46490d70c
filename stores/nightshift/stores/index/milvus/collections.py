"""The schema and index of a collection in Milvus."""

from dataclasses import dataclass
from typing import Literal

from pymilvus import DataType, MilvusClient, MilvusException

from nightshift.schema.errors import ConflictError
from nightshift.stores.index.milvus.indexes import IndexType, build_parameters, check_index_type

__all__ = [
    "VECTOR",
    "Metric",
    "Shape",
    "create_collection",
    "ensure_index",
    "rebuild_index",
    "shape_of",
]

Metric = Literal["COSINE", "IP"]

VECTOR = "vector"

_INDEX_TYPE = "nightshift.index_type"
_METRIC = "nightshift.metric"


@dataclass(frozen=True, slots=True)
class Shape:
    """Properties that a collection has from its creation on."""

    dim: int
    index_type: IndexType
    metric: Metric


def create_collection(client: MilvusClient, collection: str, shape: Shape) -> None:
    """Make a collection without an index; harmless when another process is faster."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=shape.dim)
    # Kept with the collection, so that a lost index can be built again as it was.
    properties = {_INDEX_TYPE: shape.index_type, _METRIC: shape.metric}
    try:
        client.create_collection(collection, schema=schema, properties=properties)
    except MilvusException:
        if not client.has_collection(collection):
            raise


def ensure_index(client: MilvusClient, collection: str) -> None:
    """Index the vectors, where a kill came before that or between two steps of a rebuild."""
    if client.list_indexes(collection):
        return
    shape = shape_of(client, collection)
    parameters = MilvusClient.prepare_index_params()
    parameters.add_index(
        VECTOR,
        index_type=shape.index_type,
        index_name=VECTOR,
        metric_type=shape.metric,
        params=build_parameters(shape.index_type, shape.dim),
    )
    try:
        client.create_index(collection, parameters)
    except MilvusException:
        if not client.list_indexes(collection):  # else another process was faster
            raise


def rebuild_index(client: MilvusClient, collection: str) -> None:
    """Rebuild the index of a released collection from its vectors."""
    client.drop_index(collection, VECTOR)
    ensure_index(client, collection)


def shape_of(client: MilvusClient, collection: str) -> Shape:
    """The shape that a collection was made with.

    Raises:
        ConflictError: When somebody else made it.
    """
    described = client.describe_collection(collection)
    fields = {field["name"]: field for field in described["fields"]}
    properties = described["properties"]
    if _INDEX_TYPE not in properties:
        raise ConflictError(f"{collection} was not made by this program: use another name")
    index_type = check_index_type(properties[_INDEX_TYPE], lite=False)
    return Shape(int(fields[VECTOR]["params"]["dim"]), index_type, properties[_METRIC])
