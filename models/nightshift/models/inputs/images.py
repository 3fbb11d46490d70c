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
    """What to raise where a library cannot make of an image what its model takes."""
    return InputError(
        f"a picture of {image.width} × {image.height} cannot be resized: {error}", "image_shape"
    )
