"""The settings that distinguish one method from another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nightshift.schema.errors import ConfigurationError
from nightshift.schema.params import EnhancementParams, MethodName, ScoreName
from nightshift.scoring.prompts import AnswerKind, Framing

__all__ = ["EXPECTED_ANSWER", "Method"]

#: Score → the kind of answer that the prompt requests.
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
    """A paper's prompts for a pair and its order of the candidates.

    The score of a pair is always log-odds. By default these are the margin: the logit of the
    framing's positive label minus that of its negative one, at the end of the prompt.
    """

    name: MethodName
    #: The first is the default; the others are chosen by name or by the kind of score.
    framings: tuple[Framing, ...]
    #: The same questions with their two answers exchanged, by name of the framing.
    swapped: Mapping[str, Framing] = field(default_factory=lambda: MappingProxyType({}))
    #: How the score is read from the answer.
    score: ScoreName = "margin_2way"
    #: Default number of scored candidates per query.
    depth: int
    #: Step of the score within which candidates tie and entropy decides; 0 turns this off.
    quantum: float
    #: True lets entropy decide ties above one half only.
    tie_guard: bool = True
    #: Bounds on the pixels of an image, and the length that its longer side is scaled to first;
    #: None leaves it to the checkpoint.
    min_pixels: int | None = None
    max_pixels: int | None = None
    long_side: int | None = None
    #: Weight of the coarse score in the final one; 0 ignores it.
    fusion: float = 0.0
    #: When and how the visual enhancement adds image features during decoding.
    enhancement: EnhancementParams
    #: The same method with other defaults, by name.
    presets: Mapping[str, "Method"] = field(default_factory=lambda: MappingProxyType({}))

    def preset(self, name: str | None) -> "Method":
        """The method with the defaults of a preset; unchanged if no preset is named.

        Raises:
            ConfigurationError: When it has no such preset.
        """
        if name is None:
            return self
        if name not in self.presets:
            known = ", ".join(self.presets) or "none"
            raise ConfigurationError(f"{self.name} has no preset {name!r}; it has: {known}")
        return self.presets[name]

    def framing_for(self, score: ScoreName) -> Framing:
        """The first framing that requests the answer which a score is read from.

        Raises:
            ConfigurationError: When there is none.
        """
        for rule in self.framings:
            if rule.asks_for == EXPECTED_ANSWER[score]:
                return rule
        raise ConfigurationError(f"{self.name} has no framing for score {score!r}")
