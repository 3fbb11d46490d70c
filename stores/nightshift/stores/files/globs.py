"""List files: single files, glob patterns and folders, on disk or under any fsspec URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from nightshift.schema.errors import NotFoundError
from nightshift.stores.files.addresses import resolve_beside, without_password
from nightshift.stores.files.files import to_nightshift_error

__all__ = ["ListedFile", "find_file", "glob_files", "list_folder", "root_of", "walk_files"]

_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """One file of a listing."""

    #: Absolute path or URL.
    address: str
    #: Path relative to the folder or pattern that was listed.
    name: str

    @property
    def folder(self) -> str:
        """Address of the folder that contains it."""
        return self.address.rpartition("/")[0]


def find_file(address: str) -> ListedFile | None:
    """Find the file at an address; None if the address is a folder.

    Raises:
        NotFoundError: When there is neither.
    """
    filesystem, path = _locate(address)
    with _our_errors(address):
        if filesystem.isdir(path):
            return None
        exists = filesystem.exists(path)
    if not exists:
        shown = without_password(address)
        raise NotFoundError(f"there is no {shown}; check the path or URL, and that it is mounted")
    return _to_listed_file(filesystem, path, path.rpartition("/")[0])


def glob_files(pattern: str) -> list[ListedFile] | None:
    """List the files that match a pattern (`*`, `?`, `[…]`, `**`), sorted; None without wildcards.

    Raises:
        NotFoundError: When nothing matches.
    """
    filesystem, path = _locate(pattern)
    with _our_errors(pattern):
        if not _WILDCARDS & set(path) or filesystem.exists(path):
            return None
        matches = sorted(match for match in filesystem.glob(path) if filesystem.isfile(match))
    root = _folder_before_wildcard(path)
    if not matches:
        raise NotFoundError(
            f"nothing matches {without_password(pattern)}; quote it against the shell"
        )
    return [_to_listed_file(filesystem, match, root) for match in matches]


def root_of(source: str) -> str:
    """The folder that a source is or lies in; for a pattern, the one before its first wildcard."""
    filesystem, path = _locate(source)
    with _our_errors(source):
        if _WILDCARDS & set(path) and not filesystem.exists(path):
            path = _folder_before_wildcard(path)
        elif not filesystem.isdir(path):
            path = path.rpartition("/")[0]
    return _to_listed_file(filesystem, path or "/", "").address


def list_folder(address: str) -> list[ListedFile]:
    """List the files of a folder, without those of its subfolders, sorted by name."""
    filesystem, root = _locate(address)
    return [_to_listed_file(filesystem, path, root) for path in _children(filesystem, root)[0]]


def walk_files(address: str) -> Iterator[list[ListedFile]]:
    """Yield the files of a folder and of all folders below it, one sorted list per folder.

    Hidden names are skipped, and links to folders are not followed, so that it ends. The names of
    one folder at a time are held in memory.
    """
    filesystem, root = _locate(address)
    waiting = [root]
    while waiting:
        files, folders = _children(filesystem, waiting.pop())
        yield [_to_listed_file(filesystem, path, root) for path in files]
        waiting.extend(reversed(folders))


def _folder_before_wildcard(path: str) -> str:
    return path[: min(path.find(sign) for sign in _WILDCARDS if sign in path)].rpartition("/")[0]


def _locate(address: str) -> tuple[Any, str]:
    if address[:5].lower() == "file:":
        address = resolve_beside("/", address)  # fsspec does not decode %20
    with _our_errors(address):
        filesystem, path = fsspec.core.url_to_fs(address)
    return filesystem, path.rstrip("/") or "/"


@contextmanager
def _our_errors(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every file system of fsspec raises errors of its own
        raise to_nightshift_error(error, address, "file") from error


def _children(filesystem: Any, folder: str) -> tuple[list[str], list[str]]:  # noqa: ANN401
    files: list[str] = []
    folders: list[str] = []
    with _our_errors(folder):
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


def _to_listed_file(filesystem: Any, path: str, root: str) -> ListedFile:  # noqa: ANN401
    local = isinstance(filesystem, LocalFileSystem)
    return ListedFile(
        address=path if local else filesystem.unstrip_protocol(path),
        name=path.removeprefix(root).lstrip("/"),
    )
