"""Model specifications, as an operator writes them: `library:where[?options][@precision]`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlencode

from pydantic import ValidationError

from nightshift.schema.errors import ModelError
from nightshift.schema.params import EmbedderParams
from nightshift.scoring.codecs import parse_codec

__all__ = ["Builtin", "Directory", "Hub", "ModelSpec", "Precision", "is_of_hub", "parse_spec"]

Library = Literal["open_clip", "hf", "freeret"]
Precision = Literal["float32", "bfloat16", "float16"]

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HELP = (
    "write open_clip:ARCHITECTURE/PRETRAINED (a tag, or the path of a .safetensors file), "
    "open_clip:DIRECTORY, open_clip:hf-hub:ORG/NAME, hf:ORG/NAME, hf:DIRECTORY, freeret:ORG/NAME "
    "or freeret:DIRECTORY (these two also with ?site=…&norm=…&prompt=…&task=…), each with an "
    "optional @float32, @bfloat16 or @float16"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """An architecture that open_clip knows, and its weights."""

    architecture: str
    #: A pretrained tag, or the path of a checkpoint.
    weights: str

    def __str__(self) -> str:
        return f"{self.architecture}/{self.weights}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A local directory with configuration, weights and tokenizer."""

    #: Absolute, so that a worker started elsewhere finds it.
    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A repository of the Hugging Face hub."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A parsed specification; `str` gives it back in its canonical form."""

    library: Library
    source: Builtin | Directory | Hub
    #: None where the operator leaves the choice to us.
    precision: Precision | None = None
    #: How `freeret` embeds; None for other libraries.
    embedding: EmbedderParams | None = None

    def __str__(self) -> str:
        hub = "hf-hub:" if self.library == "open_clip" and isinstance(self.source, Hub) else ""
        chosen = self.embedding.model_dump(exclude_defaults=True) if self.embedding else {}
        options = f"?{urlencode(chosen, safe='(),+')}" if chosen else ""
        suffix = f"@{self.precision}" if self.precision else ""
        return f"{self.library}:{hub}{self.source}{options}{suffix}"


def parse_spec(text: str) -> ModelSpec:
    """Read a specification; a bare path of a directory is recognised by its files.

    Raises:
        ModelError: It has no known form, or names a directory or file that does not exist.
        ConfigurationError: A codec among its options has no known form.
    """
    rest, precision = _split_precision(text)
    library, colon, where = rest.partition(":")
    if library == "open_clip" and colon:
        return ModelSpec(library="open_clip", source=_open_clip(where, text), precision=precision)
    if library == "hf" and colon:
        return ModelSpec(library="hf", source=_hf(where, text), precision=precision)
    if library == "freeret" and colon:
        where, _, options = where.partition("?")
        return ModelSpec(
            library="freeret",
            source=_hf(where, text),
            precision=precision,
            embedding=_embedding(options, text),
        )
    if _is_directory(rest):
        directory = _directory(rest, text)
        is_open_clip = (directory.path / "open_clip_config.json").is_file()
        return ModelSpec(
            library="open_clip" if is_open_clip else "hf", source=directory, precision=precision
        )
    raise ModelError(f"{text!r} is not a model specification: {_HELP}", text)


def is_of_hub(text: str) -> bool:
    """True if a specification names a model of the hub; raises as `parse_spec`."""
    return isinstance(parse_spec(text).source, Hub)


def _split_precision(text: str) -> tuple[str, Precision | None]:
    for precision in get_args(Precision):
        if text.endswith(f"@{precision}"):
            return text.removesuffix(f"@{precision}"), precision
    return text, None


def _open_clip(where: str, text: str) -> Builtin | Directory | Hub:
    if where.startswith("hf-hub:"):
        return _hub(where.removeprefix("hf-hub:"), text)
    if _is_directory(where):
        return _directory(where, text)
    architecture, slash, weights = where.partition("/")
    if not (architecture and slash and weights):
        raise ModelError(f"{text!r} names no weights: {_HELP}", text)
    if _is_path(weights) or weights.endswith(".safetensors"):
        path = Path(weights).absolute()
        if not path.is_file():
            raise ModelError(f"{text!r}: there is no file {path}", text)
        weights = str(path)
    return Builtin(architecture=architecture, weights=weights)


def _hf(where: str, text: str) -> Directory | Hub:
    is_local = _is_directory(where) or (bool(where) and Path(where).is_file())
    return _directory(where, text) if is_local else _hub(where, text)


def _embedding(options: str, text: str) -> EmbedderParams:
    # The plus of a codec such as pool2+int8 is no blank.
    written = options.replace("+", "%2B")
    try:
        params = EmbedderParams.model_validate(
            dict(parse_qsl(written, strict_parsing=bool(written)))
        )
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ModelError(f"{text!r}: {problems}", text) from error
    except ValueError as error:
        raise ModelError(f"{text!r}: options are written ?name=value&name=value", text) from error
    if params.norm != "none" and params.site == "mlp_L_postnorm":
        raise ModelError(f"{text!r}: the state at mlp_L_postnorm is normed; leave norm out", text)
    return params.model_copy(update={"codec": str(parse_codec(params.codec))})


def _hub(name: str, text: str) -> Hub:
    if not _HUB_NAME.fullmatch(name):
        raise ModelError(f"{text!r}: {name!r} is no name of the hub; {_HELP}", text)
    return Hub(name=name)


def _directory(where: str, text: str) -> Directory:
    path = Path(where).expanduser()
    if path.is_file():
        raise ModelError(
            f"{text!r}: {path.absolute()} is a file: give the directory that holds the model's "
            "configuration, weights and tokenizer",
            text,
        )
    if not path.is_dir():
        raise ModelError(f"{text!r}: there is no directory {path.absolute()}", text)
    return Directory(path=path.resolve())


def _is_directory(where: str) -> bool:
    return _is_path(where) or (bool(where) and Path(where).is_dir())


def _is_path(where: str) -> bool:
    return where.startswith(("/", "./", "../", "~/")) or where in {".", ".."}
