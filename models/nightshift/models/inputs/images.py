"""Images on their way to a model."""

from PIL import Image

from nightshift.schema.errors import InputError

__all__ = ["PreparedImage", "not_resized", "rgb"]


class PreparedImage:
    """An image as one model takes it, resized and normalised; each model has its own kind.

    It does not keep the decoded image, which may be far larger.
    """

    __slots__ = ()


def rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; itself where it is so already, for Pillow would copy all its pixels."""
    return image if image.mode == "RGB" else image.convert("RGB")


def not_resized(image: Image.Image, error: ValueError) -> InputError:
    """The error to raise where a library cannot resize an image for its model."""
    return InputError(
        f"an image of {image.width} × {image.height} cannot be resized: {error}", "image_shape"
    )
