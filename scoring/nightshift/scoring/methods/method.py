"""What tells one method from another; everything else is shared by all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nightshift.schema.errors import ConfigurationError
from nightshift.schema.params import EnhancementParams, MethodName, ScoreName
from nightshift.scoring.prompts import AnswerKind, Framing

__all__ = ["EXPECTED_ANSWER", "Method"]

#: What the model is asked to answer with, by what the score is read from.
EXPECTED_ANSWER: Mapping[ScoreName, AnswerKind] = MappingProxyType(
    {
        "margin_2way": "label",
        "p_true_full": "label",
        "number": "number",
        "listwise": "index",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a paper asks about a pair and orders the answers.

    The score of a pair is always log-odds. By default these are the margin: the logit of the
    framing's positive label minus that of its negative one, at the end of the prompt.
    """

    name: MethodName
    #: The first is the method's own; the others are asked for by name, or by what is the score.
    framings: tuple[Framing, ...]
    #: The same questions with their two answers exchanged, by name of the framing.
    swapped: Mapping[str, Framing] = field(default_factory=lambda: MappingProxyType({}))
    #: What of the answer is the score.
    score: ScoreName = "margin_2way"
    #: Candidates a query that are scored by default.
    depth: int
    #: Step of the score inside which candidates tie, and entropy decides; 0 where none does.
    quantum: float
    #: Whether entropy decides ties above one half only.
    tie_guard: bool = True
    #: Bounds on the pixels of an image, and what its longer side is scaled to before; None where
    #: the checkpoint decides.
    min_pixels: int | None = None
    max_pixels: int | None = None
    long_side: int | None = None
    #: Weight of the coarse score in the final one; 0 leaves it out.
    fusion: float = 0.0
    #: Whether, and how, the model looks at the picture again.
    enhancement: EnhancementParams
    #: The same method with other defaults, by name.
    presets: Mapping[str, "Method"] = field(default_factory=lambda: MappingProxyType({}))

    def preset(self, name: str | None) -> "Method":
        """The method with the defaults of that name; as it is where none is named.

        Raises:
            ConfigurationError: It has no such preset.
        """
        if name is None:
            return self
        if name not in self.presets:
            known = ", ".join(self.presets) or "none"
            raise ConfigurationError(f"{self.name} has no preset {name!r}; it has: {known}")
        return self.presets[name]

    def framing_for(self, score: ScoreName) -> Framing:
        """The first framing that asks for what a score is read from.

        Raises:
            ConfigurationError: There is none.
        """
        for rule in self.framings:
            if rule.asks_for == EXPECTED_ANSWER[score]:
                return rule
        raise ConfigurationError(f"{self.name} has no framing for score {score!r}")
