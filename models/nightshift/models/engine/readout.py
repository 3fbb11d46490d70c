"""Label logits, log-sum-exp and entropy from last hidden states, all in float32."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nightshift.models.engine.protocol import Reading, Trace
from nightshift.schema.errors import InputError

__all__ = ["LabelReadouts", "head_logits", "read_labels", "readings_by_name"]

# Rows of the head converted to float32 at a time: 8192 × 3584 × 4 bytes are 117 MB.
_VOCABULARY_CHUNK = 8192
# Prompts whose logits over the whole vocabulary exist at a time: 128 × 152,064 × 4 bytes are 78 MB.
_ROWS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReadouts:
    """Label logits and vocabulary statistics of n prompts, on the CPU."""

    #: float32 (n, n_labels).
    label_logits: Tensor
    #: float32 (n,), over the whole vocabulary.
    logsumexp: Tensor
    #: float32 (n,), nats, over the whole vocabulary.
    entropy: Tensor


def head_logits(weight: Tensor, states: Tensor) -> Tensor:
    """Raw logits float32 (n, vocabulary) of normed states (n, width).

    A bfloat16 product would round logits to eight bits and make ties (methods §1.4), so the
    product itself is taken in float32.

    Args:
        weight: (vocabulary, width), of any floating type.
        states: (n, width).
    """
    if weight.dtype == torch.float32:
        return states.float() @ weight.T
    states = states.float()
    return torch.cat([states @ rows.float().T for rows in weight.split(_VOCABULARY_CHUNK)], dim=1)


def read_labels(weight: Tensor, states: Tensor, label_ids: list[int]) -> LabelReadouts:
    """Read label logits, and log-sum-exp and entropy over the vocabulary.

    Entropy is `−Σ p ln p` of the softmax over all tokens (methods §1.4).

    Args:
        weight: (vocabulary, width) of the head, of any floating type.
        states: (n, width), normed.
        label_ids: Tokens of the labels.
    """
    label_logits, logsumexps, entropies = [], [], []
    for rows in states.split(_ROWS):
        logits = head_logits(weight, rows)
        logsumexp = logits.logsumexp(dim=1)
        log_p = logits - logsumexp[:, None]
        label_logits.append(logits[:, label_ids])
        logsumexps.append(logsumexp)
        entropies.append(-(log_p.exp() * log_p).sum(dim=1))
    return LabelReadouts(
        label_logits=torch.cat(label_logits).cpu(),
        logsumexp=torch.cat(logsumexps).cpu(),
        entropy=torch.cat(entropies).cpu(),
    )


def readings_by_name(
    names: Sequence[str], readouts: LabelReadouts, traces: Sequence[Trace]
) -> dict[str, Reading]:
    """One reading for each prompt, by its name `group/suffix`.

    Args:
        names: Of the n prompts.
        readouts: In the same order.
        traces: In the same order.

    Raises:
        InputError: A number is not finite; `subject_id` is the prompt's name.
    """
    finite = readouts.label_logits.isfinite().all(dim=1) & readouts.entropy.isfinite()
    for name, is_finite in zip(names, finite.tolist(), strict=True):
        if not is_finite:
            raise InputError(
                f"the model's logits for pair {name} are not finite: try float32",
                "score_not_finite",
                name,
            )
    return {
        name: Reading(
            label_logits=logits.numpy(), logsumexp=logsumexp, entropy=entropy, trace=trace
        )
        for name, logits, logsumexp, entropy, trace in zip(
            names,
            readouts.label_logits,
            readouts.logsumexp.tolist(),
            readouts.entropy.tolist(),
            traces,
            strict=True,
        )
    }
