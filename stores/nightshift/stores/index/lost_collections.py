"""A collection that Milvus has lost: made again, so that its vectors can be embedded again."""

from nightshift.schema.errors import ConflictError
from nightshift.schema.states import IndexState
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.index.milvus import VectorStore

__all__ = ["restore_collection"]


def restore_collection(vectors: VectorStore, index: IndexRow, *, replace: bool = False) -> bool:
    """Make an index' collection where it is gone, empty, and let its alias lead to it.

    Somebody may have dropped it, or Milvus may have started on an empty directory.

    Args:
        vectors: Milvus; the caller has the right to write.
        index: What Postgres knows of it.
        replace: Whether a collection of ours with vectors of another width is dropped for it.

    Returns:
        Whether it was made.

    Raises:
        ConflictError: Where the collection of that name is not ours, or not as wide.
    """
    name = index.collection
    if vectors.has(name):
        width = vectors.dim(name)
        if width == index.dim:
            return False
        if not replace:
            raise ConflictError(
                f"{name} holds vectors of {width} numbers in Milvus, and its index has {index.dim}:"
                " somebody has made it again; `nightshift doctor --repair` replaces it"
            )
        vectors.drop(name)
    vectors.create(name, dim=index.dim, index_type=index.index_type)
    if index.state is IndexState.READY:
        vectors.set_alias(index.alias, name)
    return True
