"""The parameters of the visual enhancement, written as words on top of a method's own."""

from pydantic import ValidationError

from nightshift.schema.errors import RequestError
from nightshift.schema.params import EnhancementParams

__all__ = ["parse_enhancement"]

# `memory=both` in its longer form.
_LONG_VALUES = {("memory", "both"): "image"}


def parse_enhancement(words: str, base: EnhancementParams) -> EnhancementParams:
    """Parse `on`, `off`, a layer, `FIELD=VALUE`, or several of them with commas between.

    Args:
        words: A field is one of `EnhancementParams`; `window=LOW:HIGH`. Naming a field turns the
            enhancement on, unless another word gives its trigger.
        base: Values of the fields that no word names.

    Raises:
        RequestError: A word is none of these, a field is named twice, or a value is not
            allowed.
    """
    values: dict[str, object] = {}
    word_of: dict[str, str] = {}
    for word in map(str.strip, words.split(",")):
        field, value = _split_word(word)
        if field not in EnhancementParams.model_fields:
            raise RequestError(
                f"write on, off, a layer number or FIELD=VALUE, not {word!r}; the fields are "
                f"{', '.join(EnhancementParams.model_fields)}",
                "enhancement",
            )
        if field in word_of:
            raise RequestError(
                f"it says {field} twice: {word_of[field]!r} and {word!r}", "enhancement"
            )
        long_value = _LONG_VALUES.get((field, value), value)
        values[field] = value.split(":") if field == "window" else long_value
        word_of[field] = word
    if base.trigger == "never":
        values = {"trigger": "entropy", **values}
    try:
        return EnhancementParams.model_validate({**base.model_dump(), **values})
    except ValidationError as error:
        (first, *_) = error.errors()
        field = str(first["loc"][0])
        reason = "write window=LOW:HIGH, two numbers" if field == "window" else first["msg"]
        if first["type"] == "value_error":
            reason = str(first["ctx"]["error"])
        raise RequestError(f"{word_of[field]}: {reason}", "enhancement") from error


def _split_word(word: str) -> tuple[str, str]:
    """The field that a word names, and its value; two empty strings if the word is unknown."""
    field, equals, value = word.partition("=")
    if equals:
        return field.strip(), value.strip()
    if word in {"on", "off"}:
        return "trigger", "entropy" if word == "on" else "never"
    return ("trigger", word) if word.isdecimal() else ("", "")
