"""The methods and their framings by name."""

from collections.abc import Mapping
from types import MappingProxyType

from nightshift.schema.errors import RequestError
from nightshift.schema.params import MethodName, ScorerParams
from nightshift.scoring.methods.freeret import FREERET
from nightshift.scoring.methods.indexmllm import INDEXMLLM
from nightshift.scoring.methods.method import EXPECTED_ANSWER, Method
from nightshift.scoring.methods.retllm import RETLLM
from nightshift.scoring.methods.retllm_prompts import TIE_FRAMING
from nightshift.scoring.prompts import AnswerKind, Framing

__all__ = ["FRAMINGS", "METHODS", "framing", "framings_of", "tie_framing"]

#: Every method by name.
METHODS: Mapping[MethodName, Method] = MappingProxyType(
    {method.name: method for method in (RETLLM, FREERET, INDEXMLLM)}
)

#: Every framing by name.
FRAMINGS: Mapping[str, Framing] = MappingProxyType(
    {known.name: known for method in METHODS.values() for known in method.framings}
)


_AN: Mapping[AnswerKind, str] = {"label": "a label", "number": "a number", "index": "an index"}


def framing(name: str) -> Framing:
    """The framing of that name.

    Raises:
        RequestError: There is none.
    """
    try:
        return FRAMINGS[name]
    except KeyError:
        msg = f"no framing is called {name!r}; known: {', '.join(sorted(FRAMINGS))}"
        raise RequestError(msg, "framing") from None


def tie_framing(params: ScorerParams) -> Framing | None:
    """The second question for pairs whose scores tie; None where the score holds an entropy."""
    return TIE_FRAMING if params.score == "number" else None


def framings_of(params: ScorerParams) -> tuple[Framing, ...]:
    """The questions of every pair: one framing, and its twins where a score is a mean.

    All of them have the same two labels. The first one's shared side is what pairs are grouped by;
    a mirrored one shares the other.

    Raises:
        RequestError: The method has no such framing, or none with its answers exchanged.
    """
    method, rule = METHODS[params.method], framing(params.framing)
    if rule not in method.framings:
        known = ", ".join(option.name for option in method.framings)
        msg = f"framing {rule.name!r} is not one of {method.name}; it has: {known}"
        raise RequestError(msg, "framing")
    expected = EXPECTED_ANSWER[params.score]
    if rule.asks_for != expected:
        msg = (
            f"score {params.score!r} is read from {_AN[expected]}, and framing {rule.name!r} asks "
            f"for {_AN[rule.asks_for]}: choose another score or framing"
        )
        raise RequestError(msg, "framing")
    if params.symmetrise and expected != "label":
        msg = f"score {params.score!r} cannot be symmetrised: choose one that is read from a label"
        raise RequestError(msg, "symmetrise")
    if params.subtract_prior and method is not FREERET:
        msg = (
            "only freeret's question is the same for every pair, with a prior to subtract: leave "
            f"it out, or ask by another method than {method.name}"
        )
        raise RequestError(msg, "subtract_prior")
    rules = [rule]
    if params.debias == "swap":
        if rule.name not in method.swapped:
            msg = f"framing {rule.name!r} cannot be asked with its answers exchanged"
            raise RequestError(msg, "debias", (("debias", "none"),))
        rules.append(method.swapped[rule.name])
    if params.symmetrise:
        rules += [twin.mirrored() for twin in rules]
    return tuple(rules)
