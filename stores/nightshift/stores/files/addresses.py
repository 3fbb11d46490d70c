"""Addresses of files: resolve, join and display them; members of a tar have addresses too."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import isabs, join, normpath
from urllib.parse import quote, unquote

__all__ = ["MemberAddress", "is_url", "resolve_beside", "stem_of", "without_password"]

#: `file:` URLs of this machine; Java writes `file:/x`.
_FILE_URL = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
_PREFIX = "tar://"
#: Digits of an offset: some exabytes, less than a file system can seek to.
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAddress:
    """A file inside an uncompressed tar, addressed by its offset.

    A tar has no index: fsspec's own `tar://` reads all headers to open a member by name. That takes
    0.2 s in a shard of 10,000 files and downloads a remote shard. With the offset it is one ranged
    read.
    """

    #: Address of the tar.
    archive: str
    #: Path inside it, for messages.
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
        """Parse what `str` returns; None for any other address and for impossible offsets."""
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
    """True if an address names a protocol; also for chained URLs."""
    return "://" in address


def resolve_beside(folder: str, path: str) -> str:
    """Resolve `path` as written in a file that lies in `folder`.

    URLs and absolute paths are kept; a `file:` URL of this machine becomes a plain path.
    """
    if local := _FILE_URL.match(path):
        # Percent-encoded bytes, as `pathlib.Path.as_uri` writes them, need not be UTF-8.
        return normpath(unquote(path[local.end() :], errors="surrogateescape"))
    if is_url(path) or isabs(path):
        return path
    if is_url(folder):
        return f"{folder.rstrip('/')}/{path}"
    return normpath(join(folder, path))


def without_password(text: str) -> str:
    """Mask the secrets in an address, or in a text that holds addresses.

    In every URL, also inside another URL, `***` replaces user and password, the values of the
    query, path parameters after `;`, and the fragment: these may be signatures and tokens. The
    numbers of a `tar://` member are kept.
    """
    text = _PASSWORD_WITH_BLANKS.sub("***@", text)
    text = _ADDRESS.sub(lambda match: _shown(match["scheme"], match["rest"]), text)
    return _NAMED_SECRET.sub(r"\1=***", text)


def stem_of(name: str) -> str:
    """A relative path without its last extension; the id of a file that has no other id."""
    return str(PurePosixPath(name).with_suffix(""))


# Bounded, so that a long word without `://` takes linear time.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,40}"
#: One URL; a URL inside it is the next match.
_ADDRESS = re.compile(rf"(?P<scheme>{_SCHEME})://(?P<rest>(?:(?!{_SCHEME}://)\S)*)")
_PASSWORD_WITH_BLANKS = re.compile(
    r"(?<=://)[^\s/@:?]*:(?!\d*(?:[/\s?#]|$))[^@\n]{1,200}?@(?=[\w\[])"
)
_NAMED_SECRET = re.compile(r"(?i)\b(password|passwd|pwd|secret|token|signature|sig)=(?!\*)[^\s&]+")
_PORT = re.compile(r"(\[.*\])?[^:]*(:\d*)?")
#: Protocols whose paths may hold any character, and that have no query.
_PLAIN_SCHEMES = frozenset({"file", "local", "tar", "zip"})


def _shown(scheme: str, rest: str) -> str:
    body = rest.rstrip(";,.:)'\"]>")
    after = rest[len(body) :]
    authority = re.split(r"[/?#\\;]", body, maxsplit=1)[0]
    tail = body[len(authority) :]
    if "@" in authority:
        authority = f"***@{authority.rpartition('@')[2]}"
    elif not _PORT.fullmatch(authority):
        # The password holds a character that ends the authority.
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
