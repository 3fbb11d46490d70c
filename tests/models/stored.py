"""Contents as a later night reads them: the visual tokens that were stored, in place of pixels."""

from nightshift.models.engine.family import Family
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.records import decode_record, encode_record
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.models.inputs.content import ItemContent
from nightshift.models.vision import bind
from nightshift.schema.models import ModelFacts
from nightshift.scoring.codecs import parse_codec

#: Of the visual tokens of `tiny.save_qwen`.
WIDTH = 64


def codec_of(name: str, codebook: bytes | None = None) -> Codec:
    return Codec(parse_codec(name), width=WIDTH, precision="float32", codebook=codebook)


def visual_tokens_of(
    family: Family, facts: ModelFacts, *contents: ItemContent
) -> list[tuple[StoredVisualTokens, ...]]:
    tower = bind(family, facts)
    return tower.encode(tower.prepare(contents))


def stored(family: Family, facts: ModelFacts, content: ItemContent, codec: Codec) -> ItemContent:
    (images,) = visual_tokens_of(family, facts, content)
    return ItemContent(
        texts=content.texts, stored=decode_record(encode_record(images, codec), codec)
    )
