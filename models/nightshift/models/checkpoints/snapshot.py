"""The files of a checkpoint: which ones they are, and whether they are still the same."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nightshift.schema.errors import ModelError

__all__ = ["READ", "FileIdentity", "Snapshot", "checkpoint_files", "identity", "weight_files"]

#: Endings of the files that the libraries read of a checkpoint.
READ = (".json", ".safetensors", ".jinja", ".txt", ".model", ".py")
# A checkpoint may keep the template that it means by default among others.
_TEMPLATE = Path("additional_chat_templates") / "default.jinja"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """Values that change when a file is written, replaced, or put back."""

    #: As it is named; what it links to is what the numbers are of.
    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    #: No program can set it back.
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files of a checkpoint at one time."""

    files: tuple[FileIdentity, ...]
    #: In which no file may appear; None where the hub's library adds files as they are needed.
    folder: Path | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> "Snapshot":
        """All files in a directory that could change what a model computes."""
        return cls(files=_identities(checkpoint_files(folder)), folder=folder)

    @classmethod
    def of_files(cls, files: Iterable[Path]) -> "Snapshot":
        """These files, beside which others may appear."""
        return cls(files=_identities(files))

    def changed(self) -> str | None:
        """The first file that is not what it was: written, replaced, gone or new."""
        for before in self.files:
            try:
                now = identity(Path(before.path))
            except OSError:
                return before.path
            if now != before:
                return before.path
        if self.folder is None:
            return None
        known = {file.path for file in self.files}
        try:
            present = [str(file) for file in checkpoint_files(self.folder)]
        except (OSError, ModelError):
            return str(self.folder)
        return next((file for file in present if file not in known), None)


def identity(file: Path) -> FileIdentity:
    """Which file this is now; OSError where there is none."""
    stat = file.stat()
    return FileIdentity(
        path=str(file),
        device=stat.st_dev,
        inode=stat.st_ino,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        ctime_ns=stat.st_ctime_ns,
    )


def checkpoint_files(folder: Path) -> list[Path]:
    """Files in a directory that could change what a model computes, sorted by name.

    Raises:
        ModelError: An index of its weights names files that are not in it.
        OSError: It cannot be listed.
    """
    files = {file for file in folder.iterdir() if file.suffix in READ and not file.is_dir()}
    files.update(weight_files(folder))
    if (folder / _TEMPLATE).is_file() and not (folder / "chat_template.jinja").is_file():
        files.add(folder / _TEMPLATE)
    return sorted(files)


def weight_files(folder: Path) -> list[Path]:
    """The weights in a directory, those that an index names among them, sorted.

    Raises:
        ModelError: An index cannot be read, or names files that are missing or lie elsewhere.
        OSError: The directory cannot be listed.
    """
    files = {file for file in folder.iterdir() if file.suffix == ".safetensors"}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        files.update(_of_index(index))
    return sorted(files)


def _of_index(index: Path) -> Iterator[Path]:
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is no index of weights: {error}", str(index.parent)) from error
    for name in sorted(map(str, names)):
        file = index.parent / name
        if not _is_inside(file, index.parent):
            raise ModelError(
                f"{index} names {name!r}, which lies outside its directory, where nobody would "
                "notice a change of it: put the file into the directory",
                str(index.parent),
            )
        if not file.is_file():
            raise ModelError(
                f"{file} is missing, which {index.name} names: fetch it",
                str(index.parent),
            )
        yield file


def _is_inside(file: Path, folder: Path) -> bool:
    """True if a file lies in its folder, or is a blob of the hub's cache."""
    named = Path(os.path.normpath(file))
    home = folder.resolve()
    if not named.is_relative_to(folder):
        return False
    lies = file.resolve()
    # models--org--name/snapshots/REVISION links to models--org--name/blobs.
    is_snapshot = home.parent.name == "snapshots"
    blobs = home.parent.parent / "blobs"
    return lies.is_relative_to(home) or (is_snapshot and lies.is_relative_to(blobs))


def _identities(files: Iterable[Path]) -> tuple[FileIdentity, ...]:
    return tuple(identity(file) for file in sorted(set(files)))
