"""`--enhancement`: words of the command line, on top of a method's own enhancement."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nightshift.schema.params import EnhancementParams

__all__ = ["read_enhancement"]


# `--memory both` in its longer form.
_NAMES = {("memory", "both"): "image"}


def read_enhancement(words: str, base: "EnhancementParams") -> "EnhancementParams":
    """`on`, `off`, a layer, `FIELD=VALUE`, or several of them with commas between.

    Args:
        words: A field is one of `EnhancementParams`; `window=LOW:HIGH`. Naming a field turns the
            enhancement on, unless another word says when it acts.
        base: What is not named.

    Raises:
        ConfigurationError: A word is none of these, is said twice, or its value cannot be.
    """
    from pydantic import ValidationError

    from nightshift.schema.errors import ConfigurationError
    from nightshift.schema.params import EnhancementParams

    values: dict[str, object] = {}
    said: dict[str, str] = {}
    for word in map(str.strip, words.split(",")):
        name, value = _read_word(word)
        if name not in EnhancementParams.model_fields:
            raise ConfigurationError(
                f"--enhancement is on, off, a layer number or FIELD=VALUE, not {word!r}; the "
                f"fields are {', '.join(EnhancementParams.model_fields)}"
            )
        if name in said:
            raise ConfigurationError(
                f"--enhancement says {name} twice: {said[name]!r} and {word!r}"
            )
        values[name] = value.split(":") if name == "window" else _NAMES.get((name, value), value)
        said[name] = word
    if base.trigger == "never":
        values = {"trigger": "entropy", **values}
    try:
        return EnhancementParams.model_validate({**base.model_dump(), **values})
    except ValidationError as error:
        (first, *_) = error.errors()
        name = str(first["loc"][0])
        why = "write window=LOW:HIGH, two numbers" if name == "window" else first["msg"]
        if first["type"] == "value_error":
            why = str(first["ctx"]["error"])
        raise ConfigurationError(f"--enhancement {said[name]}: {why}") from error


def _read_word(word: str) -> tuple[str, str]:
    """The field that a word names, and its value; no field where it is no word of ours."""
    name, equals, value = word.partition("=")
    if equals:
        return name.strip(), value.strip()
    if word in {"on", "off"}:
        return "trigger", "entropy" if word == "on" else "never"
    return ("trigger", word) if word.isdecimal() else ("", "")
