"""What tells one method from another; everything else is shared by all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nightshift.schema.runs import EnhancementParams, MethodName
from nightshift.scoring.prompts import Framing

__all__ = ["Method"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a paper asks about a pair and orders the answers.

    The score of a pair is always the margin: the logit of the framing's positive label minus that
    of its negative one, at the end of the prompt.
    """

    name: MethodName
    #: The first is the method's own; the others are asked for by name.
    framings: tuple[Framing, ...]
    #: The same questions with their two answers exchanged, by name of the framing.
    swapped: Mapping[str, Framing] = field(default_factory=lambda: MappingProxyType({}))
    #: Candidates a query that are scored by default.
    depth: int
    #: Step of the score inside which candidates tie, and entropy decides; 0 where none does.
    quantum: float
    #: Weight of the coarse score in the final one; 0 leaves it out.
    fusion: float = 0.0
    #: Whether, and how, the model looks at the picture again.
    enhancement: EnhancementParams
