"""Images that came inside another file, stored by their digest."""

import hashlib
import os
from pathlib import Path

from nightshift.schema.errors import ServiceUnavailableError

__all__ = ["BlobStore"]


class BlobStore:
    """Files named after the SHA-256 of their bytes: `ab/abcdef…`.

    Images in the cells of a Parquet file have no address of their own, so each is stored here once.
    Workers read them by path: with workers on other machines the folder must be shared.

    Args:
        root: The folder; created with the first blob.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def put(self, data: bytes) -> str:
        """Store bytes, unless they are stored already.

        Returns:
            The absolute path of the file.

        Raises:
            ServiceUnavailableError: When they cannot be written; the disk may be full.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self._root / digest[:2] / digest
        if not path.exists():
            try:
                _write(path, data)
            except OSError as error:
                raise ServiceUnavailableError(
                    f"{path} cannot be written: {error}; make room, or choose another data folder",
                    "files",
                ) from error
        return str(path)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: a kill must not leave an incomplete file under the name of its digest.
    part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
