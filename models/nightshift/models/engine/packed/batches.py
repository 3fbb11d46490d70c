"""Cuts groups of prompts into batches for the packed engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nightshift.models.engine.enhancement import trigger_layers
from nightshift.models.engine.prompts import Part, PromptGroup
from nightshift.schema.params import EnhancementParams

__all__ = ["batches", "max_variants", "memory_owners", "single_prompt", "unpacked_reason"]


def unpacked_reason(enhancement: EnhancementParams) -> str | None:
    """The reason to read complete prompts because packed ones read differently; None if none.

    Args:
        enhancement: As `effective` returned it.
    """
    if _may_fire(enhancement) and enhancement.norm_match == "sequence":
        return "norm_match=sequence makes every position depend on the whole prompt"
    return None


def memory_owners(group: PromptGroup, enhancement: EnhancementParams) -> list[int]:
    """The suffixes of a group by the image tokens that the enhancement blends into their prompts.

    Args:
        group: Prompts that share their beginning.
        enhancement: As `effective` returned it.

    Returns:
        For each suffix the index of the first suffix that has the same tokens.
    """
    if enhancement.memory == "all":
        return list(range(len(group.suffixes)))
    owners: dict[tuple[int, ...], int] = {}
    return [owners.setdefault(suffix.memory, i) for i, suffix in enumerate(group.suffixes)]


def max_variants(group: PromptGroup, enhancement: EnhancementParams, n_layers: int) -> int:
    """The number of variants of a group's prefix that a forward holds at a time, at most.

    Args:
        group: Prompts that share their beginning.
        enhancement: As `effective` returned it.
        n_layers: Depth of the decoder.
    """
    if not _may_fire(enhancement):
        return 1
    n_memories = len(set(memory_owners(group, enhancement)))
    if enhancement.trigger != "entropy":
        return n_memories
    # The plain prefix, and one for each memory and layer at which it may be blended in.
    return 1 + n_memories * len(trigger_layers(enhancement, n_layers))


def batches(
    groups: Sequence[PromptGroup], budget: int, variants: Callable[[PromptGroup], int]
) -> Iterator[list[PromptGroup]]:
    """Put groups of similar length together; a pure function of its arguments.

    A group larger than the budget is cut, and each part reads the prefix once more.

    Args:
        groups: In any order.
        budget: Tokens of a batch at most, padding of prefixes included.
        variants: As `max_variants` gives them; each counts as one more prefix, but never more
            than there are suffixes.

    Yields:
        One prompt at least, even if it exceeds the budget.
    """
    batch: list[PromptGroup] = []
    tokens = longest = 0
    for group in sorted(groups, key=lambda group: -len(group.prefix.ids)):
        taken: list[Part] = []
        n_variants = variants(group)
        for suffix in group.suffixes:
            # The first prefix is the longest: the others are padded to it.
            longest = longest or len(group.prefix.ids)
            cost = len(suffix.ids) + (longest if len(taken) < n_variants else 0)
            if tokens and tokens + cost > budget:
                if taken:
                    batch.append(replace(group, suffixes=tuple(taken)))
                yield batch
                batch, taken, tokens, longest = [], [], 0, len(group.prefix.ids)
                cost = len(suffix.ids) + longest
            taken.append(suffix)
            tokens += cost
        if taken:
            batch.append(replace(group, suffixes=tuple(taken)))
    if batch:
        yield batch


def single_prompt(batch: Sequence[PromptGroup]) -> tuple[str, int] | None:
    """Place and tokens of the only prompt of a batch; None if it has more."""
    if len(batch) > 1 or len(batch[0].suffixes) > 1:
        return None
    (suffix,) = batch[0].suffixes
    return suffix.name, len(batch[0].prefix.ids) + len(suffix.ids)


def _may_fire(enhancement: EnhancementParams) -> bool:
    # Uncertainty never exceeds 1: with gamma 1 it is measured, and nothing fires.
    return enhancement.trigger != "never" and not (
        enhancement.trigger == "entropy" and enhancement.gamma >= 1
    )
