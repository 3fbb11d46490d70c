"""WebDataset tars: neighbouring files of one key are one sample."""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from nightshift.producers.sources.jsonl import parse_object
from nightshift.producers.sources.rows import BadRow, EmbeddedImage, RawRow, Row
from nightshift.producers.sources.skipped_files import SkippedFiles
from nightshift.producers.sources.text_checks import check_packed, decoded_text
from nightshift.schema.errors import InputError
from nightshift.stores.files.addresses import MemberAddress
from nightshift.stores.files.files import MAX_MEMBER_BYTES, open_file, stamp_of
from nightshift.stores.files.globs import ListedFile
from nightshift.stores.files.image_formats import is_image_name, looks_like_image

__all__ = ["read_webdataset"]

_BUFFER_BYTES = 2**16
#: Of a member that is a text or an object; a text of more than 1 MB is refused by name.
_MAX_TEXT_BYTES = 2 * 2**20
_MAX_JSON_BYTES = 16 * 2**20
#: Of all members of a sample together.
_MAX_SAMPLE_BYTES = MAX_MEMBER_BYTES
#: So many tell an image.
_HEAD_BYTES = 32
#: Of a header that goes before a member's own: a long name, or notes.
_MAX_HEADER_BYTES = 2**20


def read_webdataset(file: ListedFile, skipped: SkippedFiles) -> Iterator[Row]:
    """Samples of a tar, in one pass over its bytes.

    Images become `image`, whatever their names say; `.txt` becomes `text`, the fields of `.json`
    are the row's other fields; files of other kinds are left out.
    """
    stamp = stamp_of(file.address)
    with (
        open_file(file.address) as raw,
        tarfile.open(fileobj=raw, mode="r|", bufsize=_BUFFER_BYTES, tarinfo=_TarHeader) as tar,
    ):
        members = _members(tar, file, skipped)
        for key, sample in groupby(members, lambda member: member.key):
            position = f"{file.name}:{key}"
            try:
                fields = _fields(sample, stamp)
            except InputError as error:
                message = f"{position}: {error.message}"
                yield BadRow(position=position, reason=error.reason, message=message)
            else:
                yield RawRow(position=position, fields=fields, folder=file.folder, default_id=key)
        _check_end(file, tar)


class _TarHeader(tarfile.TarInfo):
    """A header whose fault ends the reading with an error.

    `tarfile` takes the first bad header, and a missing end, for the end of the tar; so one that was
    cut short would look complete.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError:
            check_packed("the file", bytes(buf[:16]))
            raise

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # two blocks of zeros: its end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, tar: tarfile.TarFile) -> Self:
        if not self.isreg() and self.size > _MAX_HEADER_BYTES:
            msg = f"a header of {self.size:,} bytes"
            raise tarfile.ReadError(msg)
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]


def _check_end(file: ListedFile, tar: tarfile.TarFile) -> None:
    """Refuse what follows the end of a tar: of two that were joined, the second is not read."""
    while rest := tar.fileobj.read(_BUFFER_BYTES):
        if rest.strip(b"\0"):
            raise InputError(
                f"{file.name} goes on after its end, so that not all of it was read; of tars that "
                "were joined, import each by itself",
                "source_malformed",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    key: str
    name: str
    data: bytes
    address: str
    #: Why it has no data.
    fault: InputError | None = None


def _members(tar: tarfile.TarFile, file: ListedFile, skipped: SkippedFiles) -> Iterator[_Member]:
    last, n_bytes = "", 0
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined] # it would remember every header
        folder, slash, base = info.name.removeprefix("./").rpartition("/")
        stem = base.partition(".")[0]
        if info.isdir() or not stem:
            continue
        key = f"{folder}{slash}{stem}"
        last, n_bytes = key, n_bytes if key == last else 0
        member = _read(tar, info, key, file.address, _MAX_SAMPLE_BYTES - n_bytes)
        if member is None:
            kind = "" if info.isreg() else "that is a link or a device"
            skipped.add(f"{file.name}:{info.name}", kind)
        else:
            n_bytes += len(member.data)
            yield member


def _read(
    tar: tarfile.TarFile, info: tarfile.TarInfo, key: str, archive: str, room: int
) -> _Member | None:
    """A member of a kind that is read, or its fault; None for any other."""
    name = info.name.rpartition("/")[2]
    kind = name.lower().rpartition(".")[2]
    stream = tar.extractfile(info) if info.isreg() and not info.issparse() else None
    head = b"" if stream is None or kind in {"txt", "json"} else stream.read(_HEAD_BYTES)
    is_image = is_image_name(name) or looks_like_image(head)
    if not (is_image or kind in {"txt", "json"}) or not info.isreg():
        return None
    max_bytes = {"txt": _MAX_TEXT_BYTES, "json": _MAX_JSON_BYTES}.get(kind, MAX_MEMBER_BYTES)
    fault, data = None, b""
    if stream is None:
        message = f"{name} is a sparse file; write the tar again without --sparse"
        fault = InputError(message, "member_sparse")
    elif not _is_utf8(info.name):
        message = "the name of this file is not UTF-8; write the tar again with names that are"
        fault = InputError(message, "not_utf8")
    elif info.size > max_bytes:
        message = (
            f"{name} has {info.size:,} bytes, at most {max_bytes:,} are taken; make it smaller"
        )
        reason = {"txt": "text_too_long", "json": "metadata_too_long"}.get(kind, "image_too_large")
        fault = InputError(message, reason)
    elif info.size > room:
        message = f"its files have over {_MAX_SAMPLE_BYTES >> 20} MiB together; split it"
        fault = InputError(message, "sample_too_large")
    else:
        data = head + stream.read()
    address = MemberAddress(
        archive=archive, name=info.name, offset=info.offset_data, size=info.size
    )
    called = name if is_image_name(name) or not is_image else f"{name}.png"
    place = "" if fault else str(address)
    return _Member(key=key, name=called, data=data, address=place, fault=fault)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fields(members: Iterable[_Member], stamp: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    images: list[EmbeddedImage] = []
    texts: list[str] = []
    # All are consumed before one is judged: the tar is a stream, and the next sample follows.
    for member in list(members):
        if member.fault is not None:
            raise member.fault
        if is_image_name(member.name):
            images.append(EmbeddedImage(data=member.data, address=member.address, stamp=stamp))
        elif member.name.lower().endswith("json"):
            fields |= parse_object(member.data)
        else:
            texts.append(decoded_text(member.name, member.data))
    if images:
        fields["image"] = images
    if texts:
        fields["text"] = texts
    return fields
