"""Turn a rendered framing into pieces of a prompt: texts, and images of query and candidate."""

from collections.abc import Mapping, Sequence

from nightshift.models.engine.protocol import Piece
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.content import ItemContent, images_for_prompt
from nightshift.schema.params import EnhancementParams
from nightshift.scoring.prompts import Content, Rendered, Segment, Side

__all__ = ["content_of", "pieces", "remembered"]


def content_of(content: ItemContent) -> Content:
    """Return what a framing needs to know of a content."""
    return Content(texts=content.texts, n_images=content.n_images)


def pieces(
    segments: Sequence[Segment], sides: Mapping[Side, ItemContent], coded: Mapping[Side, Codec]
) -> tuple[Piece, ...]:
    """Put the images of both sides into their places in a rendered prompt.

    Args:
        segments: Of the prefix or of the suffix.
        sides: The content of each side.
        coded: The codec that the images of a side go through, where they do.
    """
    images = {side: images_for_prompt(content, coded.get(side)) for side, content in sides.items()}
    return tuple(
        segment if isinstance(segment, str) else images[segment.side][segment.index]
        for segment in segments
    )


def remembered(prompt: Rendered, params: EnhancementParams) -> tuple[bool, bool]:
    """Say for each half of a prompt, prefix and suffix, whether the enhancement uses its images."""
    if params.memory not in {"query", "candidate"}:
        return True, True

    def of_side(half: Sequence[Segment]) -> bool:
        return {part.side for part in half if not isinstance(part, str)} == {params.memory}

    return of_side(prompt.prefix), of_side(prompt.suffix)
