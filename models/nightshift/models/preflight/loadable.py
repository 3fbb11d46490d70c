"""Check, without a model's weights, whether a worker would load it."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from platformdirs import user_cache_path

from nightshift.models.checkpoints.extras import missing_worker_package
from nightshift.models.checkpoints.files import local_weights
from nightshift.models.checkpoints.hub import hub_if_reached
from nightshift.models.checkpoints.spec import parse_spec
from nightshift.models.checkpoints.unfit import refuse_damaged
from nightshift.models.load import bind_scorer, examine_embedder, load_family
from nightshift.schema.distribution import DISTRIBUTION
from nightshift.schema.errors import ModelError, NightshiftError
from nightshift.schema.identity import fingerprint
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import ScorerParams

__all__ = ["examine", "require_loadable"]

_LIBRARIES = (DISTRIBUTION, "open_clip_torch", "tokenizers", "torch", "transformers")


def require_loadable(facts: ModelFacts, scorer: ScorerParams | None = None) -> None:
    """Refuse, when planning, a model that a worker could not load.

    A model that passed on this machine with the same libraries is not examined a second time: its
    fingerprint names its files. Without the packages of a worker only the headers of its weights
    are read.

    Args:
        facts: As the model was described.
        scorer: Its parameters, of a scorer.

    Raises:
        ModelError: As the load would; nothing was downloaded but configuration and tokenizer.
    """
    marker = _marker(facts)
    if marker.exists():
        return
    try:
        with hub_if_reached():
            examine(facts, scorer)
    except NightshiftError:
        raise
    except Exception as error:  # a worker's load would raise the same
        raise ModelError(
            f"{facts.spec} cannot be loaded: {type(error).__name__}: {error}", facts.spec
        ) from error
    _remember(marker)


def examine(facts: ModelFacts, scorer: ScorerParams | None = None) -> str:
    """Examine a model as a worker's load would, without its weights.

    Args:
        facts: As it was described.
        scorer: Its parameters, of a scorer.

    Returns:
        What a message says of it, such as `can be loaded: 512 numbers a vector`.

    Raises:
        ModelError: It cannot be loaded.
    """
    spec = parse_spec(facts.spec)
    refuse_damaged(local_weights(spec), facts.spec)
    if (package := missing_worker_package()) is not None:
        return f"can be described; loading was not tried, for {package} is not installed here"
    # What transformers reports of gaps is said in the error.
    from transformers.utils.logging import set_verbosity_error

    set_verbosity_error()
    if "family" not in facts.card:
        examine_embedder(facts)
        return f"can be loaded: {facts.dim} numbers a vector"
    family = load_family(facts, device="meta")
    if facts.kind == "scorer":
        # Fails where a label is not one token.
        bind_scorer(family, scorer or ScorerParams(), facts)
    elif spec.embedding is not None:
        from nightshift.models.engine.hidden_states import HiddenStates

        HiddenStates(family, spec.embedding.site, spec.embedding.norm)
    return f"can be loaded: {family.report.text()}"


def _marker(facts: ModelFacts) -> Path:
    """The file whose existence says that a model passed."""
    checked: dict[str, object] = {
        "model": facts.fingerprint,
        "spec": facts.spec,
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
    }
    return user_cache_path("nightshift") / "loadable" / fingerprint(checked)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _remember(marker: Path) -> None:
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:
        return  # a home that cannot be written to: the model is examined each time
