"""Which groups of prompts go through the decoder together."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from nightshift.models.engine.enhancement import trigger_layers
from nightshift.models.engine.prompts import Part, PromptGroup
from nightshift.schema.runs import EnhancementParams

__all__ = ["alone", "batches", "most_variants", "why_whole"]


def why_whole(group: PromptGroup, enhancement: EnhancementParams) -> str | None:
    """Why a group cannot be packed with the same result; None where it can.

    Args:
        group: Prompts that share their beginning.
        enhancement: As `effective` returned it.
    """
    if not _may_fire(enhancement):
        return None
    if enhancement.norm_match == "sequence":
        return "norm_match=sequence makes every position depend on the whole prompt"
    if enhancement.memory == "all":
        return "memory=all lets the prefix look at the suffix"
    if any(suffix.pictures for suffix in group.suffixes):
        return "the enhancement lets the prefix look at the suffix's own pictures"
    return None


def most_variants(enhancement: EnhancementParams, n_layers: int) -> int:
    """How many variants of one prefix a forward may come to hold at a time."""
    if enhancement.trigger != "entropy" or not _may_fire(enhancement):
        return 1
    return 1 + len(trigger_layers(enhancement, n_layers))


def batches(
    groups: Sequence[PromptGroup], budget: int, variants: int
) -> Iterator[list[PromptGroup]]:
    """Groups of similar length together; a pure function of its arguments.

    A group larger than the budget is cut, and each part reads the prefix once more.

    Args:
        groups: In any order.
        budget: Tokens of a batch, padding of prefixes included.
        variants: As `most_variants` gives them; each counts as one more prefix.

    Yields:
        One prompt at least, even if it exceeds the budget.
    """
    batch: list[PromptGroup] = []
    tokens = longest = 0
    for group in sorted(groups, key=lambda one: -len(one.prefix.ids)):
        taken: list[Part] = []
        for suffix in group.suffixes:
            # The first prefix is the longest: the others are padded to it.
            longest = longest or len(group.prefix.ids)
            cost = len(suffix.ids) + (longest if len(taken) < variants else 0)
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
