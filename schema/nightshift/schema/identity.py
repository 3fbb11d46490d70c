"""Content hashes, fingerprints and keys, by which equal work is recognised."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nightshift.schema.records import Part, PartKind, TextPart, select_parts

__all__ = [
    "DECODING_VERSION",
    "ContentHashes",
    "content_hash",
    "content_hashes",
    "embedding_key",
    "fingerprint",
    "list_hash",
    "pair_key",
]

#: Part of the fingerprint of every model that sees images; raised when the decoder gives other
#: pixels for the same bytes. Version 2 halves images of over 51 million pixels, and corrects the
#: transparent colours of 16-, 4- and 2-bit PNGs, 12-bit and inverted TIFFs, and infinite floats.
DECODING_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentHashes:
    """SHA-256 digests (32 bytes) of a record's content, one for each choice of parts."""

    text: bytes | None
    image: bytes | None
    both: bytes

    def of(self, kinds: frozenset[PartKind]) -> bytes | None:
        """The digest of the selected parts; None where the record has none of them."""
        if kinds == {"text"}:
            return self.text
        if kinds == {"image"}:
            return self.image
        return self.both


def content_hash(parts: tuple[Part, ...]) -> bytes:
    """SHA-256 (32 bytes) over the ordered parts; an unread image counts by its address."""
    canonical = [
        ["text", part.text]
        if isinstance(part, TextPart)
        else ["image", part.sha256 or f"uri:{part.uri}"]
        for part in parts
    ]
    return hashlib.sha256(_canonical(canonical)).digest()


def content_hashes(parts: tuple[Part, ...]) -> ContentHashes:
    """The digests of the texts, of the images, and of all parts in order."""
    texts = select_parts(parts, frozenset({"text"}))
    images = select_parts(parts, frozenset({"image"}))
    text = content_hash(texts) if texts else None
    image = content_hash(images) if images else None
    # With parts of one kind only, both digests cover the same parts.
    both = content_hash(parts) if texts and images else text or image or content_hash(())
    return ContentHashes(text=text, image=image, both=both)


def embedding_key(item_id: str, content: bytes, embedder_fingerprint: str) -> str:
    """The Milvus primary key of one immutable vector: 64 hex digits.

    Args:
        item_id: The item's id in its catalogue.
        content: Digest of the parts that the embedder sees.
        embedder_fingerprint: The fingerprint of the embedder.
    """
    digest = hashlib.sha256()
    for field in (item_id.encode(), content, embedder_fingerprint.encode()):
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    return digest.hexdigest()


def pair_key(
    scorer_fingerprint: str, query_content: bytes, item_content: bytes, list_content: bytes = b""
) -> bytes:
    """SHA-256 (32 bytes) of a pair under a scorer; a pair with a known key is not scored again.

    `stores.results.pairs` computes the same in SQL. The digests have a fixed length, so plain
    concatenation is unambiguous.

    Args:
        scorer_fingerprint: The fingerprint of the scorer, with all its parameters.
        query_content: Digest of the query's parts that the scorer sees.
        item_content: Digest of the item's parts that the scorer sees.
        list_content: `list_hash` of the candidates if they are scored as a list.
    """
    facts = scorer_fingerprint.encode() + query_content + item_content + list_content
    return hashlib.sha256(facts).digest()


def list_hash(item_contents: Iterable[bytes]) -> bytes:
    """SHA-256 (32 bytes) of a list of candidates in their order, by the digests of its members."""
    return hashlib.sha256(b"".join(item_contents)).digest()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A short stable name (16 hex digits) of JSON-serialisable facts."""
    return hashlib.sha256(_canonical(facts)).hexdigest()[:16]


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
