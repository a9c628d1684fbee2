"""MER2024-OV set accuracy, recall and Avg, with everything needed to judge them.

Let ``g`` give a label's group. For one clip with gold labels Y and predicted labels P

    accuracy = |g(Y) ∩ g(P)| / |g(P)|,   recall = |g(Y) ∩ g(P)| / |g(Y)|,

both 0 when P is empty. A data set's accuracy and recall are the means over clips, its
``avg`` is the mean of the two, its ``f1`` the harmonic mean of the two *means* (the F_s of
MER2025/2026; not a mean of per-clip F). "Accuracy" is set precision.

Source: MERTools 89120b7, ``MER2024/main-ov.py:52-99``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np

from emolib.scoring.encode import distinct, overlap
from emolib.scoring.grouping import Assignment

METRICS = ("accuracy", "recall", "avg", "f1", "labels_per_clip")


@dataclass(frozen=True, slots=True, eq=False)
class ClipCounts:
    """Group counts of every clip under one assignment, int64 [clips] each."""

    gold: np.ndarray
    pred: np.ndarray
    hits: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Clips whose gold has a group: the others do not enter the means, bool [clips]."""
        return self.gold > 0

    @property
    def accuracy(self) -> np.ndarray:
        """Set precision of every clip, float64 [clips] in [0, 1]."""
        return self.hits / np.maximum(self.pred, 1)

    @property
    def recall(self) -> np.ndarray:
        """Set recall of every clip, float64 [clips] in [0, 1]."""
        return self.hits / np.maximum(self.gold, 1)


def count_groups(
    view: Assignment, gold_rows: np.ndarray, pred_rows: np.ndarray, n: int
) -> ClipCounts:
    """Count distinct gold, predicted and common groups of every clip.

    Args:
        view: Groups of the tokens.
        gold_rows: int64 [gold tokens], clip of each.
        pred_rows: int64 [predicted tokens].
        n: Number of clips.

    Returns:
        See :class:`ClipCounts`. Cost: three sorts, n log n in the number of tokens.
    """
    size = max(len(view.names), 1)
    g = distinct(gold_rows, view.gold, size)
    p = distinct(pred_rows, view.pred, size)
    counts = [np.bincount(keys // size, minlength=n) for keys in (g, p, overlap(g, p))]
    return ClipCounts(*counts)


def columns_of(counts: Sequence[ClipCounts]) -> np.ndarray:
    """Per-clip columns whose means the scores are functions of.

    Returns:
        float64 [clips, 3 * views]: accuracy, recall and validity of each view; the first two
        are 0 where the clip is not valid.
    """
    parts = [c for v in counts for c in (v.accuracy * v.valid, v.recall * v.valid, v.valid)]
    return np.column_stack(parts).astype(float)


def score_means(means: np.ndarray) -> np.ndarray:
    """Scores as a function of column means.

    Args:
        means: float64 [..., 3 * views + 1]: :func:`columns_of`, then labels per clip.

    Returns:
        float64 [..., 5] in the order of ``METRICS``; views are averaged, F1 after it is formed.
    """
    valid = np.maximum(means[..., 2:-1:3], 1e-300)
    precision, recall = means[..., 0:-1:3] / valid, means[..., 1:-1:3] / valid
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    p, r = precision.mean(axis=-1), recall.mean(axis=-1)
    return np.stack([p, r, (p + r) / 2, f1.mean(axis=-1), means[..., -1]], axis=-1)


def exact_means(columns: np.ndarray) -> np.ndarray:
    """Column means without rounding drift: the order of clips cannot change the last digit."""
    if len(columns) < 4096:
        return np.array([fsum(column) / len(columns) for column in columns.T.tolist()])
    means = []
    for column in columns.T:
        ordered = np.sort(column)
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        counts = np.diff(np.append(starts, len(ordered)))
        means.append(fsum((ordered[starts] * counts).tolist()) / len(ordered))
    return np.array(means)
