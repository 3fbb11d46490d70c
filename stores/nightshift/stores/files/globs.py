"""What lies where: files and folders under any fsspec URL, listed folder by folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from nightshift.schema.errors import NotFoundError
from nightshift.stores.files.addresses import resolve_beside, without_password
from nightshift.stores.files.files import translated

__all__ = ["ListedFile", "find_file", "glob_files", "list_folder", "root_of", "walk_files"]

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file that a listing found."""

    #: Absolute path or URL.
    address: str
    #: Path relative to what was named.
    name: str

    @property
    def folder(self) -> str:
        """Address of the folder it lies in."""
        return self.address.rpartition("/")[0]


def find_file(address: str) -> ListedFile | None:
    """The file at an address; None where that is a folder.

    Raises:
        NotFoundError: Where there is neither.
    """
    filesystem, path = _locate(address)
    with _reaching(address):
        if filesystem.isdir(path):
            return None
        found = filesystem.exists(path)
    if not found:
        shown = without_password(address)
        raise NotFoundError(f"there is no {shown}; check the path or URL, and that it is mounted")
    return _listed(filesystem, path, path.rpartition("/")[0])


def glob_files(pattern: str) -> list[ListedFile] | None:
    """Files that match a pattern (`*`, `?`, `[…]`, `**`), sorted; None where it is no pattern.

    Raises:
        NotFoundError: Where nothing matches.
    """
    filesystem, path = _locate(pattern)
    with _reaching(pattern):
        if not _GLOB & set(path) or filesystem.exists(path):
            return None
        found = sorted(match for match in filesystem.glob(path) if filesystem.isfile(match))
    root = _before_signs(path)
    if not found:
        raise NotFoundError(
            f"nothing matches {without_password(pattern)}; quote it, so that the shell leaves it"
        )
    return [_listed(filesystem, match, root) for match in found]


def root_of(source: str) -> str:
    """The folder that a source is or lies in; of a pattern, the one before its first sign."""
    filesystem, path = _locate(source)
    with _reaching(source):
        if _GLOB & set(path) and not filesystem.exists(path):
            path = _before_signs(path)
        elif not filesystem.isdir(path):
            path = path.rpartition("/")[0]
    return _listed(filesystem, path or "/", "").address


def list_folder(address: str) -> list[ListedFile]:
    """Files of a folder, not of the folders in it, sorted by name."""
    filesystem, root = _locate(address)
    return [_listed(filesystem, path, root) for path in _children(filesystem, root)[0]]


def walk_files(address: str) -> Iterator[list[ListedFile]]:
    """The files of a folder and of all folders below it, one sorted list a folder.

    Hidden names are left out and links to folders are not followed, so that it ends. Never more
    than one folder's names are held.
    """
    filesystem, root = _locate(address)
    waiting = [root]
    while waiting:
        files, folders = _children(filesystem, waiting.pop())
        yield [_listed(filesystem, path, root) for path in files]
        waiting.extend(reversed(folders))


def _before_signs(path: str) -> str:
    return path[: min(path.find(sign) for sign in _GLOB if sign in path)].rpartition("/")[0]


def _locate(address: str) -> tuple[Any, str]:
    if address[:5].lower() == "file:":
        address = resolve_beside("/", address)  # fsspec leaves %20 as it is
    with _reaching(address):
        filesystem, path = fsspec.core.url_to_fs(address)
    return filesystem, path.rstrip("/") or "/"


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every file system of fsspec brings errors of its own
        raise translated(error, address, "file") from error


def _children(filesystem: Any, folder: str) -> tuple[list[str], list[str]]:  # noqa: ANN401
    files: list[str] = []
    folders: list[str] = []
    with _reaching(folder):
        entries = filesystem.ls(folder, detail=True)
    for entry in entries:
        path = entry["name"].rstrip("/")
        if path.rpartition("/")[2].startswith(".") or path == folder:
            continue
        if entry["type"] != "directory":
            files.append(path)
        elif not entry.get("islink", False):
            folders.append(path)
    return sorted(files), sorted(folders)


def _listed(filesystem: Any, path: str, root: str) -> ListedFile:  # noqa: ANN401
    local = isinstance(filesystem, LocalFileSystem)
    return ListedFile(
        address=path if local else filesystem.unstrip_protocol(path),
        name=path.removeprefix(root).lstrip("/"),
    )
