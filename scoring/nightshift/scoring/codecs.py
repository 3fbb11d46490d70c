"""Codecs of visual tokens by name, and how many bytes they take (IndexMLLM, methods §4.1, §4.5).

A codec first reduces the tokens of an image to fewer vectors, then quantises the vectors:
`sample2`, `pool2+int8`, `kmeans(70)+pq(448,8)`, `none`. The arithmetic is in `models.codecs`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from nightshift.schema.errors import ConfigurationError

__all__ = ["CodecSpec", "Grid", "Quantise", "Reduce", "index_width", "parse_codec"]

#: Visual tokens of an image in time, height and width.
Grid = tuple[int, int, int]

_STEP = re.compile(r"(?P<name>[a-z]+[28]?)(?:\((?P<arguments>[a-z0-9, ]*)\))?")
_HELP = (
    "write REDUCE, QUANTISE or REDUCE+QUANTISE, with REDUCE one of sample2, sample2(replicate), "
    "pool2, pool2(replicate), kmeans(K), group(G) and QUANTISE one of none, int8, pq(M,BITS)"
)
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce:
    """The reduction of an image's tokens to fewer vectors."""

    kind: Literal["sample2", "pool2", "kmeans", "group"]
    #: Clusters of `kmeans`, members of a `group`; 2, the stride, for the others.
    size: int
    #: Fill each 2 × 2 block with its representative: saves bytes, but no computing. Clusters and
    #: groups are always written back to their members.
    replicate: bool = False

    def __str__(self) -> str:
        if self.kind in {"kmeans", "group"}:
            return f"{self.kind}({self.size})"
        return f"{self.kind}(replicate)" if self.replicate else self.kind

    @property
    def by_blocks(self) -> bool:
        """True if it combines neighbours in a grid."""
        return self.kind in {"sample2", "pool2"}

    def n_vectors(self, grid: Grid) -> int:
        """Number of vectors that are left of an image."""
        time, height, width = grid
        n_tokens = time * height * width
        match self.kind:
            case "kmeans":
                return min(self.size, n_tokens)
            case "group":
                return -(-n_tokens // self.size)
        if not self.replicate:
            return time * max(1, height // 2) * max(1, width // 2)
        blocks = (height // 2) * (width // 2)
        # A last row or column without a partner is kept as it is.
        return time * (blocks + height * width - 4 * blocks)

    def index_bytes(self, grid: Grid) -> int:
        """Bytes that map tokens to vectors; 0 if the grid implies the mapping."""
        if self.kind not in {"kmeans", "group"}:
            return 0
        time, height, width = grid
        return time * height * width * index_width(self.n_vectors(grid))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantise:
    """The quantisation of a vector."""

    kind: Literal["none", "int8", "pq"]
    #: Sub-quantisers of `pq`; 0 for the others.
    parts: int = 0
    #: Bits of each code of `pq`; 0 for the others.
    bits: int = 0

    def __str__(self) -> str:
        return f"pq({self.parts},{self.bits})" if self.kind == "pq" else self.kind

    def vector_bytes(self, width: int, precision: str) -> int:
        """Bytes of one vector.

        Args:
            width: Its length.
            precision: Of the model, `float32`, `bfloat16` or `float16`.
        """
        match self.kind:
            case "none":
                return width * _ITEM_BYTES[precision]
            case "int8":
                return width + 4  # and a scale in float32
            case "pq":
                return -(-self.parts * self.bits // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """A parsed codec; `str` gives it back in its canonical form."""

    reduce: Reduce | None
    quantise: Quantise

    def __str__(self) -> str:
        if self.reduce is None:
            return str(self.quantise)
        return str(self.reduce) + ("" if self.quantise.kind == "none" else f"+{self.quantise}")

    @classmethod
    def plain(cls) -> "CodecSpec":
        """`none`."""
        return cls(reduce=None, quantise=Quantise(kind="none"))

    @property
    def lossless(self) -> bool:
        """True if the tokens are read back bit for bit."""
        return self.reduce is None and self.quantise.kind == "none"

    @property
    def trained(self) -> bool:
        """True if it needs a codebook that was trained on tokens of the same model."""
        return self.quantise.kind == "pq"

    def n_bytes(self, grid: Grid, width: int, precision: str) -> int:
        """Exact bytes of one image; arguments as for `Quantise.vector_bytes`."""
        time, height, columns = grid
        if self.reduce is None:
            n_vectors, index = time * height * columns, 0
        else:
            n_vectors, index = self.reduce.n_vectors(grid), self.reduce.index_bytes(grid)
        return n_vectors * self.quantise.vector_bytes(width, precision) + index


def index_width(n_vectors: int) -> int:
    """Bytes of an unsigned number that can index `n_vectors` vectors."""
    return next(width for width in (1, 2, 4) if n_vectors <= 256**width)


def parse_codec(text: str) -> CodecSpec:
    """Read a codec's name.

    Raises:
        ConfigurationError: It has no known form, or a number in it is out of range.
    """
    steps = [_step(part.strip(), text) for part in text.split("+")]
    reduces = [step for step in steps if isinstance(step, Reduce)]
    quantises = [step for step in steps if isinstance(step, Quantise)]
    in_order = [*reduces, *quantises] == steps
    if not (in_order and len(reduces) <= 1 and len(quantises) <= 1):
        raise ConfigurationError(f"{text!r} is not a codec: {_HELP}")
    return CodecSpec(
        reduce=reduces[0] if reduces else None,
        quantise=quantises[0] if quantises else Quantise(kind="none"),
    )


def _step(text: str, codec: str) -> Reduce | Quantise:
    parsed = _STEP.fullmatch(text)
    arguments = [a.strip() for a in (parsed["arguments"] or "").split(",")] if parsed else []
    match parsed and parsed["name"], arguments:
        case ("none" | "int8") as kind, [""]:
            return Quantise(kind=kind)
        case "pq", [parts, bits]:
            return Quantise(
                kind="pq",
                parts=_number(parts, 1, 65_536, codec),
                bits=_number(bits, 1, 12, codec),
            )
        case ("sample2" | "pool2") as kind, [("" | "replicate") as mode]:
            return Reduce(kind=kind, size=2, replicate=mode == "replicate")
        case ("kmeans" | "group") as kind, [size]:
            return Reduce(kind=kind, size=_number(size, 2, 65_536, codec), replicate=True)
    raise ConfigurationError(f"{codec!r} is not a codec: {_HELP}")


def _number(text: str, minimum: int, maximum: int, codec: str) -> int:
    if not (text.isdecimal() and minimum <= int(text) <= maximum):
        raise ConfigurationError(
            f"{codec!r}: {text!r} is not a whole number from {minimum} to {maximum}; {_HELP}"
        )
    return int(text)
