"""Addresses of files: made absolute, joined, and those of members inside a tar."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import isabs, join, normpath
from urllib.parse import quote, unquote

__all__ = ["MemberAddress", "is_url", "resolve_beside", "stem_of", "without_password"]

#: A host is none of ours, but for this one; `file:/x` is what Java writes.
_FILE_URL = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
_PREFIX = "tar://"
#: Of an offset: some exabytes, less than what a file system can seek to.
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAddress:
    """One file inside an uncompressed tar, found again without reading the tar's index.

    A tar has no index: opening a member by name (fsspec's own `tar://`) walks all headers each
    time, 0.2 s in a shard of 10,000 files and a whole download from a remote one. The offset makes
    it one ranged read.
    """

    #: Address of the tar.
    archive: str
    #: Path inside it, for the reader of a message.
    name: str
    #: Bytes from the start of the tar to the first byte of the member.
    offset: int
    #: Bytes.
    size: int

    def __str__(self) -> str:
        name = quote(self.name, safe="/ ,;=+@'()[]~!&$")
        return f"{_PREFIX}{name}?offset={self.offset}&size={self.size}::{self.archive}"

    @classmethod
    def parse(cls, address: str) -> "MemberAddress | None":
        """The inverse of `str`; None for any other address, and for numbers that no file has."""
        member, separator, archive = address.partition("::")
        name, question, numbers = member.removeprefix(_PREFIX).partition("?offset=")
        offset, ampersand, size = numbers.partition("&size=")
        if not (address.startswith(_PREFIX) and separator and question and ampersand):
            return None
        if not (_is_number(offset) and _is_number(size)):
            return None
        return cls(archive=archive, name=unquote(name), offset=int(offset), size=int(size))


def _is_number(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS


def is_url(address: str) -> bool:
    """Whether an address names its protocol, chained ones included."""
    return "://" in address


def resolve_beside(folder: str, path: str) -> str:
    """The address of `path` as written in a file that lies in `folder`.

    URLs and absolute paths are kept; a `file:` URL of this machine becomes a plain path.
    """
    if local := _FILE_URL.match(path):
        # As `pathlib.Path.as_uri` writes it, in bytes that need not be UTF-8.
        return normpath(unquote(path[local.end() :], errors="surrogateescape"))
    if is_url(path) or isabs(path):
        return path
    if is_url(folder):
        return f"{folder.rstrip('/')}/{path}"
    return normpath(join(folder, path))


def without_password(text: str) -> str:
    """An address, or a text that holds some, as it may be shown, logged and stored.

    Of every URL, those inside another URL included, `***` replaces the user and the password, the
    values of the query, what follows `;` in the path, and the fragment: signatures and tokens
    stand there. Numbers of a `tar://` member stay.
    """
    text = _PASSWORD_WITH_BLANKS.sub("***@", text)
    text = _ADDRESS.sub(lambda match: _shown(match["scheme"], match["rest"]), text)
    return _NAMED_SECRET.sub(r"\1=***", text)


def stem_of(name: str) -> str:
    """A relative path without its last extension: the id of a file that has no other."""
    return str(PurePosixPath(name).with_suffix(""))


# Bounded: else a long word without `://` would be read once more from each of its letters.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,40}"
#: One URL; a URL that begins inside it is the next match.
_ADDRESS = re.compile(rf"(?P<scheme>{_SCHEME})://(?P<rest>(?:(?!{_SCHEME}://)\S)*)")
_PASSWORD_WITH_BLANKS = re.compile(
    r"(?<=://)[^\s/@:?]*:(?!\d*(?:[/\s?#]|$))[^@\n]{1,200}?@(?=[\w\[])"
)
_NAMED_SECRET = re.compile(r"(?i)\b(password|passwd|pwd|secret|token|signature|sig)=(?!\*)[^\s&]+")
_PORT = re.compile(r"(\[.*\])?[^:]*(:\d*)?")
#: Whose paths may hold any character, and which have no query.
_PLAIN_SCHEMES = frozenset({"file", "local", "tar", "zip"})


def _shown(scheme: str, rest: str) -> str:
    body = rest.rstrip(";,.:)'\"]>")
    after = rest[len(body) :]
    authority = re.split(r"[/?#\\;]", body, maxsplit=1)[0]
    tail = body[len(authority) :]
    if "@" in authority:
        authority = f"***@{authority.rpartition('@')[2]}"
    elif not _PORT.fullmatch(authority):
        # A password that holds one of the characters that end it.
        authority, tail = ("***@", tail.rpartition("@")[2]) if "@" in tail else ("***", tail)
    if scheme.lower() in _PLAIN_SCHEMES:
        return f"{scheme}://{authority}{_plain_tail(tail)}{after}"
    path, hash_sign, _ = tail.partition("#")
    path, question, query = path.partition("?")
    path = re.sub(r";[^/]*", ";***", path)
    query = "&".join(f"{part.partition('=')[0]}=***" if "=" in part else "***"
                     for part in query.split("&"))  # fmt: skip
    return (
        f"{scheme}://{authority}{path}{question}{query if question else ''}"
        f"{'#***' if hash_sign else ''}{after}"
    )


def _plain_tail(tail: str) -> str:
    path, question, query = tail.partition("?")
    if not question or re.fullmatch(r"offset=\d+&size=\d+(::.*)?", query):
        return tail
    return f"{path}?***"
