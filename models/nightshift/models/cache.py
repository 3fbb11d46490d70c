"""The weights of one model in a worker's memory, loaded when a job needs them."""

import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.models.checkpoints.files import snapshot
from nightshift.models.checkpoints.hub import hub_if_reached
from nightshift.models.checkpoints.snapshot import Snapshot
from nightshift.models.checkpoints.spec import is_of_hub, parse_spec
from nightshift.models.devices import pick_device, release_device_memory
from nightshift.models.embedders.protocol import Embedder
from nightshift.models.engine.runtime.counters import WorkCounters
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.load import (
    bind_answerer,
    bind_embedder,
    bind_scorer,
    bind_vision,
    load_embedder,
    load_family,
)
from nightshift.models.scorers.binding import unbatched_reason
from nightshift.models.scorers.protocol import Scorer
from nightshift.schema.errors import ModelError
from nightshift.schema.models import ModelFacts
from nightshift.schema.params import ScorerParams, TokenParams

if TYPE_CHECKING:
    from nightshift.models.answer import Answerer
    from nightshift.models.engine.family import Family
    from nightshift.models.vision import VisionTower

__all__ = ["ModelCache"]

_M = TypeVar("_M")


class ModelCache:
    """Loads weights on first use and keeps them until a job needs others.

    FreeRet's embedder, scorers of any method, and answers of the same multimodal LLM share one copy
    of its weights.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`; not touched before the first load.
        compiled: Whether multimodal LLMs go through `torch.compile`.
    """

    def __init__(self, *, device: str = "auto", compiled: bool = False) -> None:
        #: As requested, until the first load picks a device.
        self.device = device
        self._compiled = compiled
        #: Fingerprint of the model that was used last.
        self.loaded: str | None = None
        #: Digest of the weights in memory, the same for all uses that share them.
        self._weights: str | None = None
        #: Their files as they were when they were loaded.
        self.files: Snapshot | None = None
        self._family: Family | None = None
        self._bound: dict[str, object] = {}

    @property
    def counters(self) -> WorkCounters:
        """Counters of the loaded multimodal LLM since it was loaded; a copy."""
        return replace(self._family.counters) if self._family else WorkCounters()

    def drop_if_changed(self) -> str | None:
        """Forget the weights in memory if their files have changed since they were loaded.

        A file that is overwritten in place changes weights that are mapped. One that was replaced
        leaves them as they are, but the files no longer say which weights are in use.

        Returns:
            The first file that changed; None where none did, or nothing is loaded.
        """
        changed = self.files.changed() if self.files else None
        if changed is not None:
            self.drop()
        return changed

    def drop(self) -> None:
        """Forget the weights in memory; the next job loads them again."""
        self._make_room()

    def embedder(self, spec: str, fingerprint: str, codec: Codec | None = None) -> Embedder:
        """The embedder of a run, with the codec of its parameters.

        Raises:
            ModelError: It cannot be loaded, or what loads here is not what the run was planned
                with.
        """

        def load(facts: ModelFacts) -> Embedder:
            if "family" in facts.card:
                return bind_embedder(self._shared(facts), facts, codec)
            return load_embedder(spec, device=self.device)

        return self._get(spec, fingerprint, lambda: describe_embedder(spec), load)

    def scorer(
        self, spec: str, params: ScorerParams, fingerprint: str, codec: Codec | None = None
    ) -> Scorer:
        """The scorer of a run, with the codec of its parameters; ModelError as for `embedder`."""
        return self._get(
            spec,
            fingerprint,
            lambda: describe_scorer(spec, params),
            lambda facts: bind_scorer(self._shared(facts), params, facts, codec),
        )

    def unbatched_reason(self, params: ScorerParams) -> str | None:
        """Say why the loaded model scores pairs one by one; None where pairs are packed."""
        return unbatched_reason(self._family.report, params) if self._family else None

    def vision(self, spec: str, limits: TokenParams, fingerprint: str) -> "VisionTower":
        """The vision tower of a run that makes visual tokens; ModelError as for `embedder`."""
        return self._get(
            spec,
            fingerprint,
            lambda: describe_vision(
                spec,
                min_pixels=limits.min_pixels,
                max_pixels=limits.max_pixels,
                long_side=limits.long_side,
            ),
            lambda facts: bind_vision(self._shared(facts), facts),
        )

    def answerer(self, spec: str, params: ScorerParams, fingerprint: str) -> "Answerer":
        """Generates with the scorer's model; ModelError as for `embedder`."""
        return self._get(
            spec,
            fingerprint,
            lambda: describe_scorer(spec, params),
            lambda facts: bind_answerer(self._shared(facts), params),
            use="answer:",
        )

    def _get(
        self,
        spec: str,
        fingerprint: str,
        describe: Callable[[], ModelFacts],
        load: Callable[[ModelFacts], _M],
        use: str = "",
    ) -> _M:
        bound = use + fingerprint
        if bound not in self._bound:
            with hub_if_reached() if is_of_hub(spec) else nullcontext():
                self._bound[bound] = self._load(spec, fingerprint, describe, load)
        self.loaded = fingerprint
        return cast("_M", self._bound[bound])

    def _load(
        self,
        spec: str,
        fingerprint: str,
        describe: Callable[[], ModelFacts],
        load: Callable[[ModelFacts], _M],
    ) -> _M:
        self.drop_if_changed()
        # Before they are hashed, so that none can change between that and the loading.
        before = snapshot(parse_spec(spec))
        facts = describe()
        if facts.fingerprint != fingerprint:
            raise ModelError(
                f"{facts.spec} has the fingerprint {facts.fingerprint} here, but the run was "
                f"planned with {fingerprint}: the weights or their configuration differ "
                "between this worker and the planner; make them the same or plan the run again",
                facts.spec,
            )
        weights = str(facts.card.get("weights", facts.fingerprint))
        if weights != self._weights:
            self._make_room()
        bound = load(facts)
        if changed := before.changed():
            self._make_room()
            raise ModelError(
                f"{changed} changed while {facts.spec} was being loaded: it is loaded again; "
                "write a model's files into a new directory, never over those in use",
                facts.spec,
            )
        # Only now: what a load that fails leaves behind is cleared away before the next one.
        if weights != self._weights:
            # A new snapshot: the hub's library adds files as they are needed.
            self._weights, self.files = weights, snapshot(parse_spec(spec))
        return bound

    def _make_room(self) -> None:
        # First out, then in: two models of 7 B parameters do not fit one GPU.
        self.loaded, self._weights, self._family, self.files = None, None, None, None
        self._bound.clear()
        gc.collect()
        release_device_memory()
        # Only now: finding a GPU initialises CUDA.
        self.device = str(pick_device(self.device))

    def _shared(self, facts: ModelFacts) -> "Family":
        if self._family is None:
            self._family = load_family(facts, device=self.device, compiled=self._compiled)
        return self._family
