"""Hashes and keys, written down: others would make every stored vector and score a stranger."""

from nightshift.schema.identity import (
    content_hash,
    content_hashes,
    embedding_key,
    fingerprint,
    list_hash,
    pair_key,
)
from nightshift.schema.records import ImagePart, TextPart

SCORER = "0123456789abcdef"


def test_contents_keep_their_hashes():
    parts = (
        TextPart(text="a blue chair – Stuhl"),
        ImagePart(uri="file:///x.png", sha256="ab" * 32),
    )
    both = "18247b348587f0ef3c83b49d992ea3b3165bd4732bf39b59b2f789da9e1c734d"

    hashes = content_hashes(parts)

    assert content_hash(parts).hex() == both
    assert hashes.both.hex() == both
    assert hashes.text is not None
    assert hashes.text.hex() == "907f2c5d6f0401619900f85cf825085fb67153f0b6341f0e5864c638d3c6ea2a"
    assert hashes.image is not None
    assert hashes.image.hex() == "94ad0cb2bbba2ebd45d3401cf7c3d307c85b2311deae56829f5009b0688e9faa"


def test_an_image_that_was_not_read_keeps_its_hash():
    unread = (ImagePart(uri="s3://b/x.png", sha256=""),)

    assert (
        content_hash(unread).hex()
        == "1fc512a008d972bc9fd89288c8474882b9d8ca3c5b5c4767f84615db0b169f26"
    )


def test_a_vector_keeps_its_key():
    assert (
        embedding_key("item 1", bytes(32), SCORER)
        == "52a101c08bf32fe1445995dc50f343e68c20b8451014113d6c1657bd892f1fb9"
    )


def test_a_pair_keeps_its_key():
    query, item, other = b"q" * 32, b"i" * 32, b"j" * 32

    separate = pair_key(SCORER, query, item)
    in_a_list = pair_key(SCORER, query, item, list_hash([item, other]))

    assert separate.hex() == "29eab8a72c335b3971104b28cba599d5ed45c7d2f6d086fb130b0a947045e48c"
    assert in_a_list.hex() == "3c3d2a4b400c2639454e69c81b66c1245c048e5c4475d2de03455910d31b4d1e"


def test_facts_keep_their_fingerprint():
    assert fingerprint({"b": [1, None, 0.5], "a": "é"}) == "2b6442ab93e57e83"
