"""Fewer vectors for the visual tokens of one image (IndexMLLM, methods §4.1).

Every function is a pure function of its arguments: clusters start from a fixed seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightshift.schema.errors import InputError, ModelError
from nightshift.scoring.codecs import Grid, Reduce

__all__ = ["Reduced", "kept", "members", "reduce_tokens"]

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

_ROUNDS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The vectors that are left of an image's tokens."""

    #: float32 (m, width).
    vectors: Floats
    #: For each token of the image the vector that stands for it, int64 (n,); None where the
    #: grid alone says it.
    index: Places | None


def reduce_tokens(rule: Reduce, tokens: Floats, grid: Grid) -> Reduced:
    """Reduce the tokens of one image.

    Args:
        rule: How.
        tokens: (n, width), row by row.
        grid: Of n tokens in all.

    Raises:
        InputError: The tokens do not fill the grid.
        ModelError: As for `kept`.
    """
    kept(rule, grid)
    if len(tokens) != np.prod(grid):
        raise InputError(
            f"{len(tokens)} visual tokens do not fill a grid of {' × '.join(map(str, grid))}: "
            "choose a codec that does not reduce by blocks",
            "token_grid",
        )
    match rule.kind:
        case "sample2":
            return Reduced(vectors=tokens[_block_starts(rule, grid)], index=None)
        case "pool2":
            return Reduced(vectors=_pooled(rule, tokens, grid), index=None)
        case "kmeans":
            return _clustered(tokens, rule.size)
        case "group":
            return _grouped(tokens, rule.size)


def kept(rule: Reduce | None, grid: Grid) -> Places | None:
    """Places, ascending, of the tokens that a prompt still shows; None where it shows them all.

    They keep the positions that they have in the whole image.

    Raises:
        ModelError: The rule looks at neighbours, and the tokens stand in no rows and columns.
    """
    if rule is None:
        return None
    if rule.by_blocks and grid[1:] == (1, 1) and grid[0] > 1:
        raise ModelError(
            f"{rule} needs visual tokens in rows and columns, and this model cuts images into "
            "tiles: choose kmeans, group, int8 or pq"
        )
    if rule.replicate:
        return None
    return _block_starts(rule, grid)


def members(rule: Reduce, grid: Grid) -> Places | None:
    """For each token the vector that stands for it, (n,), as the grid alone says it.

    None for rules that decide it by the tokens, or that show fewer tokens.
    """
    if rule.kind in {"kmeans", "group"} or not rule.replicate:
        return None
    starts = _block_starts(rule, grid)
    vector_at = np.full(np.prod(grid), -1, np.int64)
    vector_at[starts] = np.arange(len(starts))
    return vector_at[_block_start_of_each(grid).ravel()]


def _block_start_of_each(grid: Grid) -> Places:
    """(time, height, width): the top left place of the 2 × 2 block of each; its own if in none."""
    time, height, width = grid
    places = np.arange(time * height * width).reshape(grid)
    rows, columns = np.arange(height), np.arange(width)
    row_of = np.where(rows < height // 2 * 2, rows // 2 * 2, rows)[:, None]
    column_of = np.where(columns < width // 2 * 2, columns // 2 * 2, columns)[None]
    inside = (rows < height // 2 * 2)[:, None] & (columns < width // 2 * 2)[None]
    starts = places[:, row_of, column_of]
    return np.where(inside, starts, places)


def _block_starts(rule: Reduce, grid: Grid) -> Places:
    if rule.replicate:
        return np.unique(_block_start_of_each(grid))
    time, height, width = grid
    places = np.arange(time * height * width).reshape(grid)
    # A last row or column without a partner is dropped; an image of one row keeps that row.
    rows, columns = 2 * np.arange(max(1, height // 2)), 2 * np.arange(max(1, width // 2))
    return places[:, rows[:, None], columns[None]].ravel()


def _pooled(rule: Reduce, tokens: Floats, grid: Grid) -> Floats:
    if rule.replicate:
        block_of = _block_start_of_each(grid).ravel()
        return _means(tokens, np.searchsorted(_block_starts(rule, grid), block_of))
    time, height, width = grid
    rows, columns = max(1, height // 2), max(1, width // 2)
    tall, wide = min(2, height), min(2, width)
    full_blocks = tokens.reshape(*grid, -1)[:, : rows * tall, : columns * wide]
    blocks = full_blocks.reshape(time, rows, tall, columns, wide, -1)
    pooled: Floats = blocks.mean(axis=(2, 4)).reshape(time * rows * columns, -1)
    return pooled


def _means(tokens: Floats, index: Places) -> Floats:
    """(m, width): the mean of the tokens of each index."""
    sums = np.zeros((int(index.max()) + 1, tokens.shape[1]), np.float64)
    np.add.at(sums, index, tokens)
    return (sums / np.bincount(index)[:, None]).astype(np.float32)


def _clustered(tokens: Floats, n_clusters: int) -> Reduced:
    """k-means by Euclidean distance; each cluster's mean stands for its members."""
    if len(tokens) <= n_clusters:
        return Reduced(vectors=tokens, index=np.arange(len(tokens)))
    means = tokens[_spread(tokens, n_clusters)]
    nearest = _nearest(tokens, means)
    for _ in range(_ROUNDS):
        sums = np.zeros(means.shape, np.float64)
        np.add.at(sums, nearest, tokens)
        counts = np.bincount(nearest, minlength=n_clusters)[:, None]
        # A cluster that lost all members stays where it was.
        means = np.where(counts, sums / np.maximum(counts, 1), means).astype(np.float32)
        moved = _nearest(tokens, means)
        if (moved == nearest).all():
            break
        nearest = moved
    return Reduced(vectors=means, index=nearest)


def _spread(tokens: Floats, n_clusters: int) -> Places:
    """Places of first means: each drawn by its squared distance to those before (k-means++)."""
    generator = np.random.default_rng(0)
    chosen = [int(generator.integers(len(tokens)))]
    gaps = np.full(len(tokens), np.inf)
    while len(chosen) < n_clusters:
        last = tokens[chosen[-1]].astype(np.float64)
        gaps = np.minimum(gaps, ((tokens - last) ** 2).sum(axis=1))
        total = gaps.sum()
        weights = gaps / total if total else np.full(len(tokens), 1 / len(tokens))
        chosen.append(int(generator.choice(len(tokens), p=weights)))
    return np.array(chosen)


def _nearest(tokens: Floats, means: Floats) -> Places:
    # |t − m|² without |t|², which is the same for every mean.
    distances = (means.astype(np.float64) ** 2).sum(axis=1) - 2.0 * (tokens @ means.T)
    nearest: Places = distances.argmin(axis=1)
    return nearest


def _grouped(tokens: Floats, size: int) -> Reduced:
    """Greedy groups by cosine: the most similar pair left, and those most similar to both."""
    norms = np.linalg.norm(tokens, axis=1, keepdims=True)
    units = tokens / np.where(norms, norms, 1)
    similar = units @ units.T
    np.fill_diagonal(similar, -np.inf)
    index = np.full(len(tokens), -1)
    left = np.arange(len(tokens))
    group = 0
    while len(left):
        chosen = left
        if len(left) > size:
            among = similar[np.ix_(left, left)]
            first, second = np.unravel_index(among.argmax(), among.shape)
            both = among[first] + among[second]
            both[[first, second]] = np.inf
            chosen = left[np.argsort(-both, kind="stable")[:size]]
        index[chosen] = group
        left = np.setdiff1d(left, chosen, assume_unique=True)
        group += 1
    return Reduced(vectors=_means(tokens, index), index=index)
