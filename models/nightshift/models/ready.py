"""Would a worker load this model? Everything that can be known of it without its weights."""

import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from platformdirs import user_cache_path

from nightshift.models.checkpoints.files import local_weights
from nightshift.models.checkpoints.hub import hub_if_reached
from nightshift.models.checkpoints.spec import parse_spec
from nightshift.models.checkpoints.unfit import refuse_damaged
from nightshift.schema.distribution import DISTRIBUTION
from nightshift.schema.errors import ModelError, NightshiftError
from nightshift.schema.identity import fingerprint
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import ScorerParams

__all__ = ["examine", "require_loadable"]

_LIBRARIES = (DISTRIBUTION, "open_clip_torch", "tokenizers", "torch", "transformers")


def require_loadable(facts: ModelFacts, scorer: ScorerParams | None = None) -> None:
    """Refuse, when planning, what would fail when a worker loads it.

    A model that passed on this machine with the same libraries is not looked at again: its
    fingerprint names its files.

    Args:
        facts: As the model was described.
        scorer: Its parameters, of a scorer.

    Raises:
        ModelError: As the load would; nothing was downloaded but configuration and tokenizer.
    """
    passed = _passed(facts)
    if passed.exists():
        return
    try:
        with hub_if_reached():
            examine(facts, scorer)
    except NightshiftError:
        raise
    except Exception as error:  # a worker would stumble over it just so
        raise ModelError(
            f"{facts.spec} cannot be loaded: {type(error).__name__}: {error}", facts.spec
        ) from error
    _remember(passed)


def examine(facts: ModelFacts, scorer: ScorerParams | None = None) -> str:
    """What can be said of a model that would load.

    Args:
        facts: As it was described.
        scorer: Its parameters, of a scorer.

    Raises:
        ModelError: It would not.
    """
    # All of them import torch. What transformers reports of gaps is said in the error.
    import_module("transformers.utils.logging").set_verbosity_error()
    load = import_module("nightshift.models.load")
    spec = parse_spec(facts.spec)
    refuse_damaged(local_weights(spec), facts.spec)
    if "family" not in facts.card:
        library = import_module(f"nightshift.models.embedders.{spec.library}")
        library.examine(facts)
        return f"can be loaded: {facts.dim} numbers a vector"
    family = load.load_family(facts, device="meta")
    if facts.kind == "scorer":
        # Fails where a label is not one token.
        load.bind_scorer(family, scorer or ScorerParams(), facts)
    elif spec.embedding is not None:
        hidden = import_module("nightshift.models.engine.hidden_states")
        hidden.HiddenStates(family, spec.embedding.site, spec.embedding.norm)
    return f"can be loaded: {family.report.text()}"


def _passed(facts: ModelFacts) -> Path:
    """The file that says that a model passed."""
    named: dict[str, object] = {
        "model": facts.fingerprint,
        "spec": facts.spec,
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
    }
    return user_cache_path("nightshift") / "loadable" / fingerprint(named)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _remember(passed: Path) -> None:
    try:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
    except OSError:
        return  # a home that cannot be written to: it is looked at each time
