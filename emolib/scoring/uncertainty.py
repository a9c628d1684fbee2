"""Bootstrap intervals and paired tests for scores that are functions of clip means.

Every score here is a smooth function of the means of a few per-clip columns (set accuracy,
recall, ...). Resampling clips with replacement is then the same as drawing how often each
*distinct* row occurs, from a multinomial law: exact, not an approximation, and its cost
depends on the number of distinct rows (some dozens), not on the number of clips. Rows are
sorted first, so the order of clips cannot change an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

Statistic = Callable[[np.ndarray], np.ndarray]
"""float64 [..., columns] of column means -> float64 [..., metrics]."""

_MAX_DISTINCT = 5_000
_CHUNK = 4_000_000  # numbers held at once


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Intervals of several metrics at once.

    Attributes:
        estimate: float64 [metrics].
        percentile: float64 [metrics, 2], lower and upper end.
        bca: float64 [metrics, 2], bias-corrected and accelerated.
        draws: float64 [resamples, metrics].
    """

    estimate: np.ndarray
    percentile: np.ndarray
    bca: np.ndarray
    draws: np.ndarray


def resample_means(columns: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Column means of bootstrap resamples of the rows.

    More than 5,000 distinct rows (wheel scores of very large sets) are resampled through the
    normal law of their mean, which at such sizes agrees to far below the interval's width.

    Args:
        columns: float64 [clips, columns], finite.
        resamples: Number of resamples.
        rng: Source of randomness.

    Returns:
        float64 [resamples, columns].
    """
    rows, counts = _distinct_rows(columns)
    n = int(counts.sum())
    if len(rows) > _MAX_DISTINCT:
        mean = counts @ rows / n
        spread = np.cov(rows.T, fweights=counts, ddof=0).reshape(len(mean), -1) / n
        return rng.multivariate_normal(mean, spread, size=resamples, method="eigh")
    step = max(1, _CHUNK // len(rows))
    weights = counts / n
    parts = [
        rng.multinomial(n, weights, size=min(step, resamples - start)) @ rows / n
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts)


def bootstrap(
    columns: np.ndarray,
    statistic: Statistic,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Intervals:
    """Percentile and BCa intervals of ``statistic`` over clips.

    Args:
        columns: float64 [clips, columns], finite, at least one clip.
        statistic: See :data:`Statistic`.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resampling.
        level: Coverage of the intervals, in (0, 1).

    Returns:
        See :class:`Intervals`. 10,000 resamples of 332 clips take well under a second.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14.
    """
    rng = np.random.default_rng(seed)
    draws = statistic(resample_means(columns, resamples, rng))
    rows, counts = _distinct_rows(columns)
    n = int(counts.sum())
    total = counts @ rows
    estimate = statistic(total / n)
    tail = (1 - level) / 2
    percentile = np.quantile(draws, [tail, 1 - tail], axis=0).T
    bca = percentile.copy()
    if n > 1:
        left_out = statistic((total - rows) / (n - 1))
        centred = (counts @ left_out / n) - left_out
        cubes, squares = counts @ centred**3, counts @ centred**2
        for m in range(len(estimate)):
            below = np.mean(draws[:, m] < estimate[m]) + np.mean(draws[:, m] == estimate[m]) / 2
            if squares[m] <= 0 or not 0 < below < 1:
                continue
            bias, speed = ndtri(below), cubes[m] / (6 * squares[m] ** 1.5)
            z = bias + ndtri([tail, 1 - tail])
            bca[m] = np.quantile(draws[:, m], ndtr(bias + z / (1 - speed * z)))
    return Intervals(estimate, percentile, bca, draws)


def permutation_p(
    a: np.ndarray,
    b: np.ndarray,
    statistic: Statistic,
    permutations: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """Two-sided paired permutation test: swap the two systems clip by clip.

    Args:
        a: float64 [clips, columns] of system A.
        b: float64 [clips, columns] of system B, same clips.
        statistic: See :data:`Statistic`.
        permutations: Random swaps drawn.
        seed: Seed of the swaps.

    Returns:
        float64 [metrics], p values (1 + at least as extreme) / (1 + permutations), so never 0.

    Source: Fisher's sign-swap test; the count correction is Phipson and Smyth (2010).
    """
    rng = np.random.default_rng(seed)
    observed = np.abs(statistic(a.mean(axis=0)) - statistic(b.mean(axis=0)))
    rows, counts = _distinct_rows(np.hstack([a, b]))
    n, width = len(a), a.shape[1]
    change = rows[:, width:] - rows[:, :width]
    moved = np.any(change != 0, axis=1)
    change, counts_moved = change[moved], counts[moved]
    sum_a, sum_b = counts @ rows[:, :width], counts @ rows[:, width:]
    extreme = np.zeros(len(observed))
    step = max(1, _CHUNK // max(1, len(change)))
    for start in range(0, permutations, step):
        size = (min(step, permutations - start), len(change))
        shift = rng.binomial(counts_moved, 0.5, size=size) @ change
        gap = statistic((sum_a + shift) / n) - statistic((sum_b - shift) / n)
        extreme += (np.abs(gap) >= observed - 1e-12).sum(axis=0)
    return (1 + extreme) / (1 + permutations)


def _distinct_rows(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows in sorted order, and how often each occurs (int64)."""
    if not len(columns):
        raise ValueError("no clips: a bootstrap needs at least one")
    # Sorting by bytes-as-void would be faster but orders negative numbers oddly; lexsort keeps
    # the order meaningful and is linear-ish for the few columns there are.
    order = np.lexsort(columns.T[::-1])
    ordered = columns[order]
    new = np.concatenate([[True], np.any(ordered[1:] != ordered[:-1], axis=1)])
    starts = np.flatnonzero(new)
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values of several tests of one question, Holm's step-down way.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected, worst = {}, 0.0
    for rank, name in enumerate(ordered):
        worst = max(worst, min(1.0, p_values[name] * (len(ordered) - rank)))
        corrected[name] = worst
    return {name: corrected[name] for name in p_values}
