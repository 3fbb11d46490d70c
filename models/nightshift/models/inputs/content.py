"""What a model is shown of an item or a query: decoded, and nothing else of it."""

from dataclasses import dataclass

from PIL import Image

from nightshift.models.inputs.codecs.tokens import SeenPicture
from nightshift.models.inputs.images import PreparedImage

__all__ = ["ItemContent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemContent:
    """Texts and pictures, each in the record's order."""

    texts: tuple[str, ...] = ()
    #: Decoded, or already as the model that will be shown them takes them.
    images: tuple[Image.Image | PreparedImage, ...] = ()
    #: In place of `images`, where an earlier night stored what the model's vision tower made of
    #: them; for what asks that model only.
    seen: tuple[SeenPicture, ...] = ()

    @property
    def n_images(self) -> int:
        """How many pictures it has."""
        return len(self.images or self.seen)
