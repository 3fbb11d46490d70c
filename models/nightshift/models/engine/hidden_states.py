"""States inside the decoder at the end of prompts, which FreeRet embeds with (methods §3.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nightshift.models.engine.family import Decoder, Family, VisualTokens
from nightshift.models.engine.plain import TOKENS_PER_BATCH, batches, single_prompt
from nightshift.models.engine.prompts import Prompt, embed
from nightshift.models.engine.runtime.token_budget import TokenBudget
from nightshift.schema.errors import ModelError

__all__ = ["HiddenStates"]


class HiddenStates:
    """Reads one state of each prompt; the decoder stops where the state is known.

    Args:
        family: The loaded model.
        site: Where the state is; see `EmbedderParams`.
        norm: The norm that is applied to it; see `EmbedderParams`.
        tokens_per_batch: Tokens of one forward at most, padding included.

    Raises:
        ModelError: The model has no state there.
    """

    def __init__(
        self,
        family: Family,
        site: str,
        norm: str = "none",
        *,
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        self._family = family
        self._module = _before(family.decoder, site)
        self._norm = _norm(family.decoder, site, norm)
        self._budget = TokenBudget(tokens_per_batch)

    def read(self, prompts: Sequence[Prompt], visual_tokens: Sequence[VisualTokens]) -> Tensor:
        """The states float32 (n, width), on the CPU, in the order of the prompts.

        Raises:
            InputError: A prompt does not fit this device's memory; `subject_id` is its name.
        """
        by_name: dict[str, Tensor] = {}

        def forward(batch: list[Prompt]) -> None:
            states = self._states(batch, visual_tokens)
            # Behind its end a row is padding.
            ends = states[range(len(batch)), [len(prompt.ids) - 1 for prompt in batch]]
            if self._norm is not None:
                ends = self._norm(ends)
            by_name.update(zip([prompt.name for prompt in batch], ends.float().cpu(), strict=True))

        self._budget.run(prompts, batches, forward, single_prompt)
        return torch.stack([by_name[prompt.name] for prompt in prompts])

    def _states(self, batch: Sequence[Prompt], visual_tokens: Sequence[VisualTokens]) -> Tensor:
        embedded = embed(self._family, batch, visual_tokens)
        if self._module is None:
            return self._family.decode(embedded)
        handle = self._module.register_forward_pre_hook(_stop)
        try:
            self._family.decode(embedded)
        except _ReachedError as reached:
            return reached.states
        finally:
            handle.remove()
        raise AssertionError("the decoder never reached the state")


class _ReachedError(Exception):
    """Ends the forward where the state is known; it is no failure."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def _stop(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _ReachedError(inputs[0])


def _before(decoder: Decoder, site: str) -> nn.Module | None:
    """The module whose input is the state; None for what the whole forward returns."""
    match site:
        case "attn_L":
            if decoder.feed_forward_norms is None:
                raise ModelError(
                    "a layer of this model adds attention and feed-forward at once: there is no "
                    "state between them; choose another site, such as mlp_L-1"
                )
            return decoder.feed_forward_norms[-1]
        case "mlp_L_prenorm":
            return decoder.norm
        case "mlp_L-1":
            return decoder.layers[-1]
        case _:
            return None


def _norm(decoder: Decoder, site: str, norm: str) -> nn.Module | None:
    """The norm of the state; a scale without gains would not change a cosine."""
    match norm, site:
        case "none", _:
            return None
        case "rms", "attn_L":
            assert decoder.feed_forward_norms is not None
            return decoder.feed_forward_norms[-1]
        case "rms", "mlp_L-1":
            layer: Any = decoder.layers[-1]  # torch types a module's parts loosely
            input_norm: nn.Module = layer.input_layernorm
            return input_norm
        case _:
            return decoder.norm
