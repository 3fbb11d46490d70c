"""A file that is exchanged while it is read is refused, or read from inside the folder only."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from nightshift.producers.sources.folder import image_rows
from nightshift.producers.sources.rows import RawRow
from nightshift.producers.sources.skipped_files import SkippedFiles
from nightshift.schema.errors import InputError
from nightshift.stores.files.addresses import MemberAddress
from nightshift.stores.files.files import open_file, sha256
from nightshift.stores.files.globs import ListedFile
from nightshift.stores.files.images import verify_image
from nightshift.stores.files.roots import ImageRoots

#: Of 1,000 reads 4 came from outside while judging and opening were two steps.
READS = 1500


def image(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1, 1), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a red image, beside another with a blue one of the same length."""
    for folder, colour, word in (("shop", "red", "ours"), ("away", "blue", "text")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(image(colour))
        (tmp_path / folder / "a.txt").write_text(word)
    return tmp_path / "shop"


@contextmanager
def exchanging(link: Path, targets: list[Path]) -> Iterator[None]:
    """Lets a link point to one target after another, without pause."""
    stop = threading.Event()
    fresh = link.with_name("fresh")

    def run() -> None:
        while not stop.is_set():
            for target in targets:
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(target)
                fresh.replace(link)

    thread = threading.Thread(target=run)
    link.symlink_to(targets[0])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def outcomes(read: Callable[[], object]) -> set[object]:
    """Results of many reads, or the reasons for which they were refused."""
    visited: set[object] = set()
    for _ in range(READS):
        try:
            visited.add(read())
        except InputError as error:
            visited.add(error.reason)
    return visited


def verified(roots: ImageRoots, path: str) -> str:
    roots.check(path)
    return verify_image(path, roots=roots).sha256


def digested(roots: ImageRoots, path: str) -> str:
    roots.check(path)
    return sha256(path, noun="image", roots=roots)


def member(roots: ImageRoots, path: str) -> str:
    """The image as if it lay in a tar."""
    size = len(image("red"))
    address = str(MemberAddress(archive=path, name="a.png", offset=0, size=size))
    roots.check(address)
    return verify_image(address, roots=roots).sha256


@pytest.mark.parametrize("read", [verified, digested, member])
@pytest.mark.parametrize("name", ["link.png", "folder/a.png"])
def test_no_image_is_read_through_a_link_that_is_exchanged(
    shop: Path, name: str, read: Callable[[ImageRoots, str], str]
):
    roots = ImageRoots([str(shop)])
    away = shop.parent / "away"
    inside, outside = (shop, away) if "/" in name else (shop / "a.png", away / "a.png")
    ours = verify_image(str(shop / "a.png")).sha256

    with exchanging(shop / name.partition("/")[0], [inside, outside]):
        recorded = outcomes(lambda: read(roots, str(shop / name)))

    assert recorded <= {ours, "image_not_allowed"}


def test_no_caption_is_read_through_a_link_that_is_exchanged(shop: Path):
    files = [ListedFile(address=str(shop / name), name=name) for name in ("link.png", "link.txt")]

    def read() -> object:
        (row,) = image_rows(files[:1], files, root=str(shop), skipped=SkippedFiles())
        return row.fields["text"] if isinstance(row, RawRow) else row.reason

    targets = [shop / "a.txt", shop.parent / "away" / "a.txt"]
    with exchanging(shop / "link.txt", targets):
        recorded = outcomes(read)

    assert recorded <= {"ours", "caption_not_allowed"}


def test_a_file_that_is_exchanged_for_a_pipe_is_not_waited_for(shop: Path):
    os.mkfifo(shop / "pipe")

    def read() -> str:
        with open_file(str(shop / "link")) as stream:
            return stream.read().decode()

    with exchanging(shop / "link", [shop / "a.txt", shop / "pipe"]):
        recorded = outcomes(read)

    assert recorded <= {"ours", "file_unreadable"}


def test_a_root_that_is_named_as_a_url_follows_links_too(shop: Path):
    (shop / "out.png").symlink_to(shop.parent / "away" / "a.png")
    roots = ImageRoots([f"file://{shop}"])

    roots.check(str(shop / "a.png"))
    for path in (str(shop / "out.png"), f"file://{shop}/out.png"):
        with pytest.raises(InputError) as caught:
            roots.check(path)
        assert caught.value.reason == "image_not_allowed"
