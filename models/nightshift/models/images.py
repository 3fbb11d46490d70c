"""Images on their way to a model."""

from PIL import Image

__all__ = ["PreparedImage", "rgb"]


class PreparedImage:
    """An image as one model takes it, resized and normalised; each model has its own kind.

    It does not keep the decoded image, which may be far larger.
    """

    __slots__ = ()


def rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; itself where it is so already, for Pillow would copy all its pixels."""
    return image if image.mode == "RGB" else image.convert("RGB")
