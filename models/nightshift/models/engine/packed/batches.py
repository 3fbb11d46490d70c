"""Which groups of prompts go through the decoder together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nightshift.models.engine.enhancement import trigger_layers
from nightshift.models.engine.prompts import Part, PromptGroup
from nightshift.schema.params import EnhancementParams

__all__ = ["alone", "batches", "looks", "max_variants", "repacking_reason"]


def repacking_reason(enhancement: EnhancementParams) -> str | None:
    """Why prompts cannot be packed with the same result; None where they can.

    Args:
        enhancement: As `effective` returned it.
    """
    if _may_fire(enhancement) and enhancement.norm_match == "sequence":
        return "norm_match=sequence makes every position depend on the whole prompt"
    return None


def looks(group: PromptGroup, enhancement: EnhancementParams) -> list[int]:
    """What each prompt of a group would look at again.

    Args:
        group: Prompts that share their beginning.
        enhancement: As `effective` returned it.

    Returns:
        By suffix, the first suffix whose prompt looks at the very same.
    """
    if enhancement.memory == "all":
        return list(range(len(group.suffixes)))
    first: dict[tuple[int, ...], int] = {}
    return [first.setdefault(suffix.memory, i) for i, suffix in enumerate(group.suffixes)]


def max_variants(group: PromptGroup, enhancement: EnhancementParams, n_layers: int) -> int:
    """How many variants of a group's prefix a forward may come to hold at a time.

    Args:
        group: Prompts that share their beginning.
        enhancement: As `effective` returned it.
        n_layers: Depth of the decoder.
    """
    if not _may_fire(enhancement):
        return 1
    n_looks = len(set(looks(group, enhancement)))
    if enhancement.trigger != "entropy":
        return n_looks
    # As it is, and what each look made of it at each layer.
    return 1 + n_looks * len(trigger_layers(enhancement, n_layers))


def batches(
    groups: Sequence[PromptGroup], budget: int, variants: Callable[[PromptGroup], int]
) -> Iterator[list[PromptGroup]]:
    """Groups of similar length together; a pure function of its arguments.

    A group larger than the budget is cut, and each part reads the prefix once more.

    Args:
        groups: In any order.
        budget: Tokens of a batch, padding of prefixes included.
        variants: As `max_variants` gives them; each counts as one more prefix, but never more
            than there are suffixes.

    Yields:
        One prompt at least, even if it exceeds the budget.
    """
    batch: list[PromptGroup] = []
    tokens = longest = 0
    for group in sorted(groups, key=lambda one: -len(one.prefix.ids)):
        taken: list[Part] = []
        most = variants(group)
        for suffix in group.suffixes:
            # The first prefix is the longest: the others are padded to it.
            longest = longest or len(group.prefix.ids)
            cost = len(suffix.ids) + (longest if len(taken) < most else 0)
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


def alone(batch: Sequence[PromptGroup]) -> tuple[str, int] | None:
    """Place and tokens of the one prompt of a batch; None if it has more."""
    if len(batch) > 1 or len(batch[0].suffixes) > 1:
        return None
    (suffix,) = batch[0].suffixes
    return suffix.place, len(batch[0].prefix.ids) + len(suffix.ids)


def _may_fire(enhancement: EnhancementParams) -> bool:
    # Uncertainty is 1 at the most: with gamma 1 it is looked at, and that is all.
    return enhancement.trigger != "never" and not (
        enhancement.trigger == "entropy" and enhancement.gamma >= 1
    )
