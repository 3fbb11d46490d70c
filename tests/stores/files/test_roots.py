"""Images may lie below the roots and nowhere else, however the way there is spelt."""

from pathlib import Path

import pytest

from nightshift.schema.errors import InputError
from nightshift.stores.files.addresses import MemberAddress, without_password
from nightshift.stores.files.globs import root_of
from nightshift.stores.files.roots import ImageRoots


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with an image, beside another with a secret, and links between them."""
    for name in ("shop/in.png", "shop2/secret.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "shop" / "out.png").symlink_to(tmp_path / "shop2" / "secret.png")
    (tmp_path / "shop" / "folder").symlink_to(tmp_path / "shop2")
    (tmp_path / "shop" / "inner.png").symlink_to("in.png")
    (tmp_path / "link").symlink_to(tmp_path / "shop")
    return tmp_path / "shop"


def allowed(roots: ImageRoots, address: str) -> bool:
    try:
        roots.check(address)
    except InputError as error:
        return error.reason != "image_not_allowed"
    return True


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("in.png", True),
        ("not-there-yet.png", True),
        ("inner.png", True),
        ("../shop/in.png", True),
        ("out.png", False),
        ("folder/secret.png", False),
        ("../shop2/secret.png", False),
        ("../shop", False),
        ("../../../../../../../../etc/passwd", False),
    ],
)
def test_links_and_dots_are_followed_before_it_is_judged(shop: Path, path: str, inside: bool):
    assert allowed(ImageRoots([str(shop)]), f"{shop}/{path}") is inside


def test_a_root_may_itself_be_reached_by_a_link(shop: Path):
    assert allowed(ImageRoots([str(shop.parent / "link")]), f"{shop.parent}/link/in.png")
    assert allowed(ImageRoots([str(shop.parent / "link")]), f"{shop}/in.png")


def test_several_roots_are_declared(shop: Path):
    roots = ImageRoots([str(shop), f"{shop}2/", "s3://bucket/shop"])

    assert allowed(roots, f"{shop}/out.png")
    assert allowed(roots, "s3://bucket/shop/a.png")


@pytest.mark.parametrize(
    "address",
    [
        *("s3://bucket/shop/../other/a.png", "s3://bucket/shopping/a.png", "s3://other/shop/a.png"),
        *(
            "s3://bucket/shop/%2e%2e/other/a.png",
            "s3://bucket/shop/%2E./a",
            "s3://bucket/shop/..\\a",
        ),
        *("file:///etc/passwd", "FILE:///etc/passwd", "local:///etc/passwd", "memory://x"),
        *("simplecache::s3://bucket/shop/a.png", "zip://a.png::file:///tmp/x.zip", "data://x"),
        *("s3://bucket/shop/a.png::file:///etc/passwd", "reference://x", "/dev/zero", ""),
    ],
)
def test_no_other_address_is_opened(shop: Path, address: str):
    assert not allowed(ImageRoots([str(shop), "s3://bucket/shop"]), address)


def test_a_member_of_a_tar_lies_where_the_tar_lies(shop: Path):
    roots = ImageRoots([str(shop)])
    inside, outside = (
        str(MemberAddress(archive=archive, name="a.png", offset=0, size=9))
        for archive in (f"{shop}/a.tar", "/etc/passwd")
    )

    assert allowed(roots, inside)
    assert not allowed(roots, outside)


def test_web_addresses_are_judged_by_their_own_rules():
    assert allowed(ImageRoots(), "https://images.example/a.png")
    assert not allowed(ImageRoots(), "https://user:word@images.example/a.png")


def test_the_root_of_a_source_is_its_folder(shop: Path):
    (shop / "t.jsonl").touch()

    assert root_of(str(shop)) == root_of(f"{shop}/t.jsonl") == root_of(f"{shop}/*.jsonl")
    assert root_of(f"{shop}/*.jsonl") == str(shop)
    assert root_of(f"{shop.parent}/*/t.jsonl") == str(shop.parent)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:word@h/a.csv?x=y@z", "https://***@h/a.csv?x=***"),
        ("403 for http://word@h:80/", "403 for http://***@h:80/"),
        ("ftp://u:hunter2@h/x.png", "ftp://***@h/x.png"),
        ("SFTP://u:hunt/er@2@h/x", "SFTP://***@h/x"),
        ("ftp://u:hunter 2@h/x", "ftp://***@h/x"),
        ("s3://AKIA:hunter2@b/x", "s3://***@b/x"),
        ("az://c/x?se=9&sig=hunter2", "az://c/x?se=***&sig=***"),
        ("http://h/x?hunter2#hunter2", "http://h/x?***#***"),
        ("http://h/x;u:hunter2@h?s=hunter2", "http://h/x;***?s=***"),
        ("simplecache::ftp://u:hunter2@h/x", "simplecache::ftp://***@h/x"),
        ("https://proxy/http://u:hunter2@h/x", "https://proxy/http://***@h/x"),
        (
            "tar://x?offset=1&size=1::http://u:hunter2@e/x",
            "tar://x?offset=1&size=1::http://***@e/x",
        ),
        ("redis://:hunter2@h:6379/0 is away", "redis://***@h:6379/0 is away"),
        ("host=h password=hunter2", "host=h password=***"),
        ("look at http://h:80/x; or at a@b", "look at http://h:80/x; or at a@b"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("s3://bucket/a@b.png", "s3://bucket/a@b.png"),
        ("/srv/a@b.png", "/srv/a@b.png"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str):
    assert without_password(address) == shown


def test_a_long_text_without_an_address_is_read_once():
    # Read once more from each of its letters, it would take an hour.
    text = "a" * 500_000
    assert without_password(f"{text} http://u:hunter2@h/{text}") == f"{text} http://***@h/{text}"
