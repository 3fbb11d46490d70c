"""Which columns a source has, and which of them look as if they named images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nightshift.stores.files.image_formats import is_image_name

__all__ = ["ColumnSummary"]

_MAX_COLUMNS = 100
_ROWS = 1000
_WORDS = ("image", "img", "photo", "picture", "thumb")


@dataclass(slots=True)
class ColumnSummary:
    """The first columns of a source, by its first rows and by their own names."""

    #: Name → whether a value of it is an image or names one.
    _has_value: dict[str, bool] = field(default_factory=dict)
    _rows: int = 0

    def look_at(self, fields: Mapping[str, Any]) -> None:
        """Note the columns of a row."""
        if self._rows >= _ROWS:
            return
        self._rows += 1
        for name, value in fields.items():
            if name in self._has_value or len(self._has_value) < _MAX_COLUMNS:
                self._has_value[name] = self._has_value.get(name, False) or _may_be_image(value)

    def names(self) -> str:
        """All of them, for a message."""
        return ", ".join(repr(name) for name in list(self._has_value)[:12])[:300] or "none"

    def like_images(self) -> list[str]:
        """Those whose values or names speak of images, beside `image` itself."""
        by_value = [name for name, is_like in self._has_value.items() if is_like]
        by_name = [name for name in self._has_value if any(word in name.lower() for word in _WORDS)]
        return [name for name in dict.fromkeys([*by_value, *by_name]) if name != "image"]


def _may_be_image(value: object) -> bool:
    if isinstance(value, str):
        return len(value) < 2000 and is_image_name(value.partition("?")[0])
    if isinstance(value, Mapping):
        return value.keys() <= {"bytes", "path"}
    return isinstance(value, bytes)
