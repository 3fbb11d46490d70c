"""Checks of text files: refuse what is not UTF-8 lines, and name the format or encoding."""

from collections import Counter
from collections.abc import Sequence

from nightshift.schema.errors import InputError
from nightshift.stores.files.packed_formats import packed_format

__all__ = ["check_columns", "check_header", "check_packed", "check_start", "decoded_text"]

# The longer marks come first: UTF-32 begins as UTF-16 does.
_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32LE",
    b"\x00\x00\xfe\xff": "UTF-32BE",
    b"\xff\xfe": "UTF-16LE",
    b"\xfe\xff": "UTF-16BE",
}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def check_start(name: str, head: bytes) -> None:
    """Refuse a file that is not lines of UTF-8.

    Args:
        name: The name of the file, for the message.
        head: Its first bytes, some thousands if it has so many.

    Raises:
        InputError: `not_utf8`, `malformed_line` (its lines end with CR) or `source_malformed`.
    """
    check_packed(name, head)
    encoding = _encoding(head)
    if encoding is not None:
        raise _not_utf8(name, encoding)
    if _ends_lines_with_cr(head):
        raise InputError(
            f"{name} ends its lines with CR, as old Macs did; convert it: "
            "`tr '\\r' '\\n' < OLD > NEW`",
            "malformed_line",
        )


def check_packed(name: str, head: bytes) -> None:
    """Refuse a packed file or one of another format, by its first bytes.

    Raises:
        InputError: `source_malformed`.
    """
    packed = packed_format(head)
    if packed is not None:
        raise InputError(f"{name} is {packed.description}; {packed.remedy}", "source_malformed")


def decoded_text(name: str, data: bytes) -> str:
    """Decode a caption, without its byte-order mark and surrounding blanks.

    Raises:
        InputError: `not_utf8`.
    """
    try:
        if (encoding := _encoding(data)) is None:
            return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        encoding = "WINDOWS-1252"
    raise _not_utf8(name, encoding)


def check_header(name: str, header: list[str], delimiter: str) -> None:
    """Refuse the first line of a file if it does not name the columns.

    Raises:
        InputError: `not_utf8`, or `malformed_header` when two columns have the same name or the
            file uses another separator.
    """
    for column in header:
        try:
            column.encode()
        except UnicodeEncodeError as error:
            raise _not_utf8(f"the first line of {name}", "WINDOWS-1252") from error
    for separator, called in _SEPARATORS.items():
        times = sum(column.count(separator) for column in header)
        if separator == delimiter or separator not in header[0] or times < len(header):
            continue
        suffix = {"\t": ", or call it .tsv", ",": ", or call it .csv"}.get(separator, "")
        raise InputError(
            f"{name} has the column {header[0][:200]!r}, so {called} probably separate its fields; "
            f"write {_SEPARATORS[delimiter]} instead{suffix}",
            "malformed_header",
        )
    check_columns(name, header)


def check_columns(name: str, columns: Sequence[str]) -> None:
    """Refuse two columns of the same name: one of them would be lost.

    Raises:
        InputError: `malformed_header`.
    """
    counts = Counter(columns)
    if len(counts) < len(columns):
        (twice, _), *_ = counts.most_common(1)
        raise InputError(
            f"{name} has two columns {twice[:200]!r}; rename one of them", "malformed_header"
        )


def _not_utf8(name: str, encoding: str) -> InputError:
    is_sure = encoding != "WINDOWS-1252"
    what = f"is {encoding}" if is_sure else "is not UTF-8"
    command = f"`iconv -f {encoding} -t UTF-8 OLD > NEW`"
    return InputError(
        f"{name} {what}; convert it{':' if is_sure else ', for example'} {command}", "not_utf8"
    )


def _encoding(head: bytes) -> str | None:
    for mark, encoding in _ENCODINGS.items():
        if head.startswith(mark):
            return encoding
    # Without a mark: in UTF-16 and UTF-32, all bytes but one of a Western letter are zero.
    places = [head[place::4].count(0) * 8 > len(head) for place in range(4)]
    known = {
        (False, True, False, True): "UTF-16LE",
        (True, False, True, False): "UTF-16BE",
        (False, True, True, True): "UTF-32LE",
        (True, True, True, False): "UTF-32BE",
    }
    return known.get((places[0], places[1], places[2], places[3])) if len(head) >= 8 else None


def _ends_lines_with_cr(head: bytes) -> bool:
    first, sign, rest = head.partition(b"\r")
    if not sign or not rest or b"\n" in head:
        return False
    if first.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return first.rstrip().endswith(b"}")
    return first.count(b'"') % 2 == 0
