"""The visual tokens of an item's images as one record of bytes, and back."""

import json
import zlib
from collections.abc import Sequence

from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.schema.errors import InputError

__all__ = ["decode_record", "encode_record"]

_VERSION = 1
_LENGTH_BYTES = 4


def encode_record(images: Sequence[StoredVisualTokens], codec: Codec) -> bytes:
    """One record: a compressed header, then each image as the codec writes it.

    Args:
        images: Of one item, in its order, with all their tokens, as the vision tower left them.
        codec: Of the model's width.

    Raises:
        InputError: A number is not finite, or the codec needs a grid that the family has not.
    """
    header = [
        {
            "n_deep": image.n_deepstack,
            "grid": image.grid,
            "tokens": image.tokens,
            "written": image.prompt_parts,
        }
        for image in images
    ]
    facts = zlib.compress(json.dumps([_VERSION, header], separators=(",", ":")).encode())
    payload = b"".join(codec.encode(image.values, image.tokens) for image in images)
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
    images = []
    for facts in header:
        tokens = tuple(facts["tokens"])
        stop = start + codec.n_bytes(tokens)
        images.append(
            StoredVisualTokens(
                values=codec.decode(data[start:stop], tokens),
                n_deepstack=facts["n_deep"],
                grid=tuple(facts["grid"]),
                tokens=tokens,
                prompt_parts=tuple(facts["written"]),
                kept=codec.kept(tokens),
            )
        )
        start = stop
    if start != len(data):
        raise _foreign(f"{len(data) - start} bytes are left over")
    return tuple(images)


def _foreign(reason: str) -> InputError:
    return InputError(
        f"stored visual tokens cannot be read: {reason}; build them again", "tokens_corrupt"
    )
