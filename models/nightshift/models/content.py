"""What a model is shown of an item or a query: decoded, and nothing else of it."""

from dataclasses import dataclass

from PIL import Image

__all__ = ["ItemContent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemContent:
    """Texts and decoded pictures, each in the record's order."""

    texts: tuple[str, ...] = ()
    images: tuple[Image.Image, ...] = ()
