"""WebDataset tars: neighbouring files of one key are one sample."""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from nightshift.producers.sources.folder import is_image
from nightshift.producers.sources.jsonl import parse_object
from nightshift.producers.sources.rows import BadRow, EmbeddedImage, RawRow, Row
from nightshift.schema.errors import InputError
from nightshift.stores.addresses import MemberAddress
from nightshift.stores.files import open_file
from nightshift.stores.listing import ListedFile

__all__ = ["read_webdataset"]

_BUFFER_BYTES = 2**16


def read_webdataset(file: ListedFile) -> Iterator[Row]:
    """Samples of a tar, in one pass over its bytes.

    Images become `image`, `.txt` becomes `text`, the fields of `.json` are the row's other fields;
    files of other kinds are left out.
    """
    with (
        open_file(file.address) as raw,
        tarfile.open(fileobj=raw, mode="r|", bufsize=_BUFFER_BYTES, tarinfo=_Header) as tar,
    ):
        for key, members in groupby(_members(tar, file.address), lambda member: member.key):
            position = f"{file.name}:{key}"
            try:
                fields = _fields(members)
            except InputError as error:
                message = f"{position}: {error.message}"
                yield BadRow(position=position, reason=error.reason, message=message)
            else:
                yield RawRow(position=position, fields=fields, folder=file.folder, default_id=key)


class _Header(tarfile.TarInfo):
    """A header whose fault ends the reading with an error.

    `tarfile` takes the first bad header, and a missing end, for the end of the tar; so one that was
    cut short would look complete.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # two blocks of zeros: its end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    key: str
    name: str
    data: bytes
    address: str


def _members(tar: tarfile.TarFile, archive: str) -> Iterator[_Member]:
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined] # it would remember every header
        folder, slash, base = info.name.removeprefix("./").rpartition("/")
        stem, _, extension = base.partition(".")
        wanted = is_image(base) or extension.lower().rpartition(".")[2] in {"txt", "json"}
        if not (info.isreg() and stem and wanted):
            continue
        data = tar.extractfile(info)
        assert data is not None
        address = MemberAddress(
            archive=archive, name=info.name, offset=info.offset_data, size=info.size
        )
        yield _Member(
            key=f"{folder}{slash}{stem}", name=base, data=data.read(), address=str(address)
        )


def _fields(members: Iterable[_Member]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    images: list[EmbeddedImage] = []
    texts: list[str] = []
    # All are consumed before one is judged: the tar is a stream, and the next sample follows.
    for member in list(members):
        if is_image(member.name):
            images.append(EmbeddedImage(data=member.data, address=member.address))
        elif member.name.lower().endswith("json"):
            fields |= parse_object(member.data)
        else:
            texts.append(_decode(member))
    if images:
        fields["image"] = images
    if texts:
        fields["text"] = texts
    return fields


def _decode(member: _Member) -> str:
    try:
        return member.data.decode().strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{member.name} is not UTF-8; convert it", "not_utf8") from error
