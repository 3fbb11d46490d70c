"""The texts and images of an item or a query, as a model is shown them."""

from dataclasses import dataclass

from PIL import Image

from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.tokens import CodedImage, StoredVisualTokens
from nightshift.models.inputs.images import PreparedImage

__all__ = ["ImagePiece", "ItemContent", "images_for_prompt"]

#: An image in a prompt: decoded, prepared, as stored visual tokens, or to go through a codec.
ImagePiece = Image.Image | PreparedImage | StoredVisualTokens | CodedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemContent:
    """Texts and images, each in the record's order."""

    texts: tuple[str, ...] = ()
    #: Decoded, or already prepared for the model that will be shown them.
    images: tuple[Image.Image | PreparedImage, ...] = ()
    #: Stored visual tokens in place of `images`; only for the model whose vision tower made them.
    stored: tuple[StoredVisualTokens, ...] = ()

    @property
    def n_images(self) -> int:
        """The number of images, prepared or stored."""
        return len(self.images or self.stored)


def images_for_prompt(content: ItemContent, codec: Codec | None = None) -> tuple[ImagePiece, ...]:
    """Return the images of a content as pieces of a prompt.

    Args:
        content: Of an item or a query.
        codec: The codec that images go through; stored tokens have gone through it already.
    """
    if content.stored:
        return content.stored
    if codec is None:
        return content.images
    return tuple(CodedImage(image=image, codec=codec) for image in content.images)
