"""The distinct images of a call, each preprocessed once."""

from nightshift.models.engine.family import Family, PixelLimits, PromptImage
from nightshift.models.engine.visual import prepare_image
from nightshift.models.inputs.content import ImagePiece

__all__ = ["ImageSet"]


class ImageSet:
    """The distinct images of a call, by content, in the order in which they were added."""

    def __init__(self, family: Family, limits: PixelLimits) -> None:
        self._family = family
        self._limits = limits
        self.images: list[PromptImage] = []
        self._indices: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    def add(self, piece: ImagePiece) -> None:
        """Add an image unless an equal one is there; raises as `prepare`."""
        # Prompts of a group mostly show the same object: compare it before its pixels.
        if id(piece) in self._keys:
            return
        image = prepare_image(self._family, piece, self._limits)
        assert image.key is not None
        self._keys[id(piece)] = image.key
        if image.key not in self._indices:
            self._indices[image.key] = len(self.images)
            self.images.append(image)

    def index(self, piece: ImagePiece) -> int:
        """The index of an added image in `images`."""
        return self._indices[self._keys[id(piece)]]
