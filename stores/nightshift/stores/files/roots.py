"""Where images that a catalogue names may lie: below declared roots, or on the web."""

from collections.abc import Iterable
from os.path import realpath
from pathlib import Path
from urllib.parse import unquote

from nightshift.schema.errors import InputError
from nightshift.stores.files.addresses import MemberAddress, is_url
from nightshift.stores.files.http import check_url, is_web, web_rules

__all__ = ["ImageRoots"]


class ImageRoots:
    """Folders and URLs below which images may lie; links are followed before it is judged.

    A row of a catalogue is written by anyone: without this, `/etc/passwd.png` or a link to it would
    be read with the rights of whoever imports, and shown in a report.

    Args:
        roots: Absolute paths or fsspec URLs.
    """

    def __init__(self, roots: Iterable[str] = ()) -> None:
        # As paths: in a URL no link would be followed before it is judged.
        named = [root.removeprefix("file://").rstrip("/") + "/" for root in roots]
        self._urls = tuple(root for root in named if is_url(root))
        self._folders = tuple(
            realpath(root).rstrip("/") + "/" for root in named if not is_url(root)
        )

    def check(self, address: str) -> None:
        """Refuse an address that may not be read; reads nothing.

        What it names may be exchanged before it is opened: `open_file(…, roots=…)` judges again.

        Args:
            address: Absolute path, fsspec URL, or the address of a member inside a tar.

        Raises:
            InputError: `image_not_allowed`; as `web.check_url` for web addresses.
        """
        member = MemberAddress.parse(address)
        place = member.archive if member else address
        if is_web(place):
            check_url(place, web_rules())
        elif not (self._holds_url(place) if is_url(place) else self.holds_file(place)):
            raise _outside(address)

    def check_open(self, descriptor: int, address: str) -> None:
        """Refuse a file that was opened and does not lie below a root, whatever led to it.

        Args:
            descriptor: Of the file, opened for its path or for reading.
            address: As it was named, for the message.

        Raises:
            InputError: `image_not_allowed`.
        """
        # Linux names the file itself: no link can be exchanged between this and the reading.
        if not str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(self._folders):
            raise _outside(address)

    def holds_file(self, path: str) -> bool:
        """Whether a local path, its links followed, lies below a root."""
        try:
            return realpath(path).startswith(self._folders)
        except (OSError, ValueError):  # a NUL in the path
            return False

    def _holds_url(self, url: str) -> bool:
        # Some stores decode what is written after a percent sign.
        steps = unquote(url).replace("\\", "/").split("/")
        return url.startswith(self._urls) and ".." not in steps and "::" not in url


def _outside(address: str) -> InputError:
    return InputError(
        f"{address} lies outside the folder of its source; where images may lie there, add the "
        "folder to NIGHTSHIFT_IMAGE_ROOTS",
        "image_not_allowed",
    )
