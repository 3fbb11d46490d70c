"""What a prompt shows of queries and candidates: their contents as pieces of it."""

from collections.abc import Mapping, Sequence

from nightshift.models.engine.protocol import Piece
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.tokens import CodedImage
from nightshift.models.inputs.content import ItemContent
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Content, Rendered, Segment, Side

__all__ = ["content_of", "pieces", "remembered", "shown"]


def content_of(content: ItemContent) -> Content:
    """What a framing needs to know of it."""
    return Content(texts=content.texts, n_images=content.n_images)


def pieces(
    segments: Sequence[Segment], sides: Mapping[Side, ItemContent], coded: Mapping[Side, Codec]
) -> tuple[Piece, ...]:
    """Segments of a rendered prompt with the pictures in their places.

    Args:
        segments: Of the prefix or of the suffix.
        sides: Whose pictures these are.
        coded: What the pictures of a side go through before they are shown.
    """
    images = {side: shown(content, coded.get(side)) for side, content in sides.items()}
    return tuple(s if isinstance(s, str) else images[s.side][s.index] for s in segments)


def remembered(prompt: Rendered, params: EnhancementParams) -> tuple[bool, bool]:
    """Whether the enhancement looks again at the images of a prompt's two halves."""
    if params.memory not in {"query", "candidate"}:
        return True, True

    def of_side(half: Sequence[Segment]) -> bool:
        return {part.side for part in half if not isinstance(part, str)} == {params.memory}

    return of_side(prompt.prefix), of_side(prompt.suffix)


def shown(content: ItemContent, codec: Codec | None = None) -> tuple[Piece, ...]:
    """The pictures of a content as they go into prompts, through the codec where there is one."""
    if content.seen:
        return content.seen
    if codec is None:
        return content.images
    return tuple(CodedImage(image=image, codec=codec) for image in content.images)
