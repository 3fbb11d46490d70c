"""Recreate a collection that Milvus has lost, so that its vectors can be embedded again."""

from nightshift.schema.errors import ConflictError
from nightshift.schema.states import IndexState
from nightshift.stores.index.indexes import IndexRow
from nightshift.stores.index.milvus import VectorStore

__all__ = ["restore_collection"]


def restore_collection(vectors: VectorStore, index: IndexRow, *, replace: bool = False) -> bool:
    """Create an empty collection for an index that has lost it, and let its alias name it.

    Somebody may have dropped it, or Milvus may have started on an empty directory.

    Args:
        vectors: Milvus; the caller has the right to write.
        index: The index version.
        replace: Drop a collection of ours with vectors of another width.

    Returns:
        True if it was created.

    Raises:
        ConflictError: When another program made the collection of that name, or its width differs.
    """
    name = index.collection
    if vectors.has(name):
        width = vectors.dim(name)
        if width == index.dim:
            return False
        if not replace:
            raise ConflictError(
                f"{name} holds vectors of {width} numbers in Milvus, and its index has {index.dim}:"
                " somebody has created it again; `nightshift doctor --repair` replaces it"
            )
        vectors.drop(name)
    vectors.create(name, dim=index.dim, index_type=index.index_type)
    if index.state is IndexState.READY:
        vectors.set_alias(index.alias, name)
    return True
