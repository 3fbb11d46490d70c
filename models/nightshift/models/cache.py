"""The model that a worker has in memory: one at a time, loaded when a job first needs it."""

import gc
from collections.abc import Callable
from typing import TypeVar

from nightshift.models.embedder import Embedder
from nightshift.models.load import load_embedder, load_scorer, pick_device, release_device_memory
from nightshift.models.scorer import Scorer
from nightshift.schema.errors import ModelError
from nightshift.schema.runs import ScorerParams

__all__ = ["ModelCache"]

_M = TypeVar("_M", bound=Embedder | Scorer)


class ModelCache:
    """Loads weights on first use and keeps them until a job needs others.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`; not touched before the first load.
    """

    def __init__(self, *, device: str = "auto") -> None:
        #: As asked for, until the first load says which it is.
        self.device = device
        #: Fingerprint of the model in memory.
        self.loaded: str | None = None
        self._model: Embedder | Scorer | None = None

    def embedder(self, spec: str, fingerprint: str) -> Embedder:
        """The embedder of a run.

        Raises:
            ModelError: It cannot be loaded, or what loads here is not what the run was planned
                with.
        """
        return self._get(spec, fingerprint, lambda: load_embedder(spec, device=self.device))

    def scorer(self, spec: str, params: ScorerParams, fingerprint: str) -> Scorer:
        """The scorer of a run; ModelError as for `embedder`."""
        return self._get(spec, fingerprint, lambda: load_scorer(spec, params, device=self.device))

    def _get(self, spec: str, fingerprint: str, load: Callable[[], _M]) -> _M:
        if self.loaded != fingerprint or self._model is None:
            # First out, then in: two models of 7 B parameters do not fit one GPU.
            self.loaded, self._model = None, None
            gc.collect()
            release_device_memory()
            # Only now: finding a GPU initialises CUDA.
            self.device = str(pick_device(self.device))
            model = load()
            if model.fingerprint != fingerprint:
                raise ModelError(
                    f"{spec} has the fingerprint {model.fingerprint} here, but the run was planned "
                    f"with {fingerprint}: the weights or their configuration differ between this "
                    "worker and the planner; make them the same or plan the run anew",
                    spec,
                )
            self.loaded, self._model = fingerprint, model
        return self._model  # type: ignore[return-value]
