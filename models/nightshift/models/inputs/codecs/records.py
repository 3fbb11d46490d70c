"""The visual tokens of an item's pictures as one record of bytes, and back."""

import json
import zlib
from collections.abc import Sequence

from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.schema.errors import InputError

__all__ = ["decode_record", "encode_record"]

_VERSION = 1
_LENGTH_BYTES = 4


def encode_record(pictures: Sequence[StoredVisualTokens], codec: Codec) -> bytes:
    """One record: a compressed header, then each picture as the codec writes it.

    Args:
        pictures: Of one item, in its order; whole, as the vision tower left them.
        codec: Of the model's width.

    Raises:
        InputError: A number is not finite, or the codec needs a grid that the family has not.
    """
    header = [
        {
            "n_deep": picture.n_deepstack,
            "grid": picture.grid,
            "tokens": picture.tokens,
            "written": picture.written,
        }
        for picture in pictures
    ]
    facts = zlib.compress(json.dumps([_VERSION, header], separators=(",", ":")).encode())
    payload = b"".join(codec.encode(picture.values, picture.tokens) for picture in pictures)
    return len(facts).to_bytes(_LENGTH_BYTES, "little") + facts + payload


def decode_record(data: bytes, codec: Codec) -> tuple[StoredVisualTokens, ...]:
    """The inverse of `encode_record`, up to the codec's loss.

    Raises:
        InputError: The bytes are no record of this codec.
    """
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    try:
        version, header = json.loads(zlib.decompress(data[_LENGTH_BYTES:start]))
    except (zlib.error, ValueError, TypeError) as error:
        raise _foreign(str(error)) from error
    if version != _VERSION:
        raise _foreign(f"it is of version {version}")
    pictures = []
    for facts in header:
        tokens = tuple(facts["tokens"])
        stop = start + codec.n_bytes(tokens)
        pictures.append(
            StoredVisualTokens(
                values=codec.decode(data[start:stop], tokens),
                n_deepstack=facts["n_deep"],
                grid=tuple(facts["grid"]),
                tokens=tokens,
                written=tuple(facts["written"]),
                kept=codec.kept(tokens),
            )
        )
        start = stop
    if start != len(data):
        raise _foreign(f"{len(data) - start} bytes are left over")
    return tuple(pictures)


def _foreign(why: str) -> InputError:
    return InputError(
        f"stored visual tokens cannot be read: {why}; build them again", "tokens_corrupt"
    )
