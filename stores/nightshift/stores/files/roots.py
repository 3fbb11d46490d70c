"""Limits where the images of a catalogue may lie: below declared roots, or on the web."""

from collections.abc import Iterable
from os.path import realpath
from pathlib import Path
from urllib.parse import unquote

from nightshift.schema.errors import InputError
from nightshift.stores.files.addresses import MemberAddress, is_url
from nightshift.stores.files.http import check_url, is_web, web_rules

__all__ = ["ImageRoots"]


class ImageRoots:
    """Folders and URLs below which images may lie; links are followed before the check.

    Anyone may have written a row of a catalogue. Without this check, `/etc/passwd.png` or a link to
    it would be read with the rights of the importing user, and shown in a report.

    Args:
        roots: Absolute paths or fsspec URLs.
    """

    def __init__(self, roots: Iterable[str] = ()) -> None:
        # `file:` URLs become paths: links in a URL would not be followed before the check.
        named = [root.removeprefix("file://").rstrip("/") + "/" for root in roots]
        self._urls = tuple(root for root in named if is_url(root))
        self._folders = tuple(
            realpath(root).rstrip("/") + "/" for root in named if not is_url(root)
        )

    def check(self, address: str) -> None:
        """Refuse an address that may not be read, without reading it.

        The file may be replaced before it is opened, so `open_file(…, roots=…)` checks it again.

        Args:
            address: Absolute path, fsspec URL, or the address of a member inside a tar.

        Raises:
            InputError: `image_not_allowed`; as `http.check_url` for web addresses.
        """
        member = MemberAddress.parse(address)
        target = member.archive if member else address
        if is_web(target):
            check_url(target, web_rules())
        elif not (self._holds_url(target) if is_url(target) else self.holds_file(target)):
            raise _outside(address)

    def check_open(self, descriptor: int, address: str) -> None:
        """Refuse an open file that does not lie below a root, whatever path led to it.

        Args:
            descriptor: The file, opened for its path or for reading.
            address: The address of the row, for the message.

        Raises:
            InputError: `image_not_allowed`.
        """
        # Linux names the open file itself: no link can be replaced before it is read.
        if not str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(self._folders):
            raise _outside(address)

    def holds_file(self, path: str) -> bool:
        """True if a local path, with its links followed, lies below a root."""
        try:
            return realpath(path).startswith(self._folders)
        except (OSError, ValueError):  # a NUL in the path
            return False

    def _holds_url(self, url: str) -> bool:
        # Some stores decode percent-encoded characters.
        steps = unquote(url).replace("\\", "/").split("/")
        return url.startswith(self._urls) and ".." not in steps and "::" not in url


def _outside(address: str) -> InputError:
    return InputError(
        f"{address} lies outside the folder of its source; if images may lie there, add the "
        "folder to NIGHTSHIFT_IMAGE_ROOTS",
        "image_not_allowed",
    )
