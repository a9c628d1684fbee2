"""The result of scoring, and how it is put together from blocks of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum
from typing import TYPE_CHECKING, Any

import numpy as np

from emolib.errors import ScoreError
from emolib.scoring import constant, uncertainty
from emolib.scoring.encode import LabelSets
from emolib.scoring.grouping import Grouped, Grouping
from emolib.scoring.openset import (
    METRICS,
    ClipCounts,
    columns_of,
    count_groups,
    exact_means,
    score_means,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Score:
    """The result of scoring one system. Fractions, never percent.

    Attributes:
        n: Clips scored.
        accuracy: Mean set precision, in [0, 1]. Wheels: level 1, mean over five wheels.
        recall: Mean set recall, in [0, 1].
        avg: (accuracy + recall) / 2, the MER2024-OV ranking score.
        f1: Harmonic mean of ``accuracy`` and ``recall`` (wheels: formed per wheel, then averaged).
        labels_per_clip: Mean number of distinct predicted labels.
        coverage: Share of all gold and predicted labels that the grouping knows.
        coverage_gold: The same over gold labels.
        coverage_pred: The same over predicted labels.
        grouping: ``{"name", "version"}``.
        names: How many clips were dropped or zeroed, by reason; empty when none.
        wheel: Wheel scores (``m1``, ``m2``, ``m3_level1``, ``m3_level2``, ``ranking``) or None.
        resamples: Bootstrap resamples behind ``ci95``.
        seed: Their seed.
        clips: Names of the clips, in the gold's order.
        columns: float64 [clips, 3 * views + 1], what the scores are means of.
        shared: The groups do not depend on the clip or the system.
    """

    n: int
    accuracy: float
    recall: float
    avg: float
    f1: float
    labels_per_clip: float
    coverage: float
    coverage_gold: float
    coverage_pred: float
    grouping: dict[str, str]
    names: dict[str, int]
    wheel: dict[str, Any] | None
    resamples: int
    seed: int
    clips: list[str] = field(repr=False)
    columns: np.ndarray = field(repr=False)
    shared: bool = field(repr=False)
    source: Callable[[], ScoreData] = field(repr=False)

    @cached_property
    def data(self) -> ScoreData:
        """Labels and groups of every clip, looked up again when first asked for."""
        return self.source()

    @cached_property
    def intervals(self) -> uncertainty.Intervals:
        """Bootstrap over clips, in the order of ``METRICS``."""
        return uncertainty.bootstrap(self.columns, score_means, self.resamples, self.seed)

    @cached_property
    def ci95(self) -> dict[str, list[float]]:
        """95 % intervals [lo, hi]: percentile under the metric's name, BCa under name + "_bca".

        Empty when ``resamples`` is 0.
        """
        if not self.resamples:
            return {}
        found = self.intervals
        plain = {m: found.percentile[i].tolist() for i, m in enumerate(METRICS)}
        return plain | {f"{m}_bca": found.bca[i].tolist() for i, m in enumerate(METRICS)}

    @cached_property
    def constant_list(self) -> dict[str, Any]:
        """The one list that, given for every clip, has the highest Avg on these clips.

        Chosen with knowledge of the gold labels and without any model: a system that does not
        clearly beat it has shown nothing. Keys: labels, accuracy, recall, avg, f1; same_length,
        best_f1: see :func:`emolib.scoring.constant.best_constant`.
        """
        return constant.best_constant(self.data)

    @cached_property
    def per_clip(self) -> pd.DataFrame:
        """One row a clip: name, scores, counts, labels, groups and hits, in the gold's order."""
        return self.data.frame()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the keys ``emolib score --json`` writes."""
        result: dict[str, Any] = {
            "n": self.n,
            "accuracy": self.accuracy,
            "recall": self.recall,
            "avg": self.avg,
            "f1": self.f1,
            "labels_per_clip": self.labels_per_clip,
            "coverage": self.coverage,
            "constant_list": self.constant_list,
            "ci95": self.ci95,
            "grouping": dict(self.grouping),
        }
        if self.names:
            result["names"] = dict(self.names)
        if self.wheel is not None:
            result["wheel"] = self.wheel
        return result


@dataclass(frozen=True, eq=False)
class ScoreData:
    """What a score was computed from; kept so that tables and tests need no second pass."""

    clips: list[str]
    gold: LabelSets
    pred: LabelSets
    vocab: list[str]
    grouped: Grouped
    shared: bool
    counts: list[ClipCounts]
    columns: np.ndarray

    def frame(self) -> pd.DataFrame:
        """Build :attr:`Score.per_clip`. Groups and hits are those of the first view."""
        import pandas as pd

        view = self.grouped.views[0]

        def texts(sets: LabelSets, ids: np.ndarray, names: Sequence[str]) -> list[list[str]]:
            bounds = zip(sets.offsets[:-1].tolist(), sets.offsets[1:].tolist(), strict=True)
            flat = ids.tolist()
            return [
                list(dict.fromkeys(names[i] for i in flat[start:end] if i >= 0))
                for start, end in bounds
            ]

        gold_groups = texts(self.gold, view.gold, view.names)
        pred_groups = texts(self.pred, view.pred, view.names)
        columns, views = self.columns, len(self.counts)
        valid = np.maximum(columns[:, 2:-1:3].sum(axis=1), 1)
        return pd.DataFrame(
            {
                "name": self.clips,
                "accuracy": columns[:, 0:-1:3].sum(axis=1) / (valid if views > 1 else 1),
                "recall": columns[:, 1:-1:3].sum(axis=1) / (valid if views > 1 else 1),
                "n_gold": self.counts[0].gold,
                "n_predicted": self.counts[0].pred,
                "n_hits": self.counts[0].hits,
                "gold": texts(self.gold, self.gold.codes, self.vocab),
                "predicted": texts(self.pred, self.pred.codes, self.vocab),
                "gold_groups": gold_groups,
                "predicted_groups": pred_groups,
                "hits": [
                    [g for g in groups if g in set(found)]
                    for groups, found in zip(gold_groups, pred_groups, strict=True)
                ],
            }
        )


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a block of clips contributes to a score; small, however many labels there are.

    Attributes:
        clips: Names.
        columns: As :attr:`Score.columns`.
        tables: The same of every further table (wheels), without labels per clip.
        known: Gold labels that the grouping knows, gold labels, and both of the predictions.
    """

    clips: list[str]
    columns: np.ndarray
    tables: dict[str, np.ndarray]
    known: tuple[int, int, int, int]


def measure(
    clips: list[str], gold: LabelSets, pred: LabelSets, vocab: list[str], grouping: Grouping
) -> tuple[Part, ScoreData]:
    """Group the labels of some clips and count."""
    gold, pred = gold.once(), pred.once()
    grouped = grouping.assign(clips, gold, pred, vocab)
    rows = gold.rows, pred.rows
    n = len(clips)
    counts = [count_groups(view, *rows, n) for view in grouped.views]
    columns = np.column_stack([columns_of(counts), np.diff(pred.offsets)])
    tables = {
        name: columns_of([count_groups(view, *rows, n) for view in views])
        for name, views in grouped.tables.items()
    }
    sides = grouped.known_gold, grouped.known_pred
    data = ScoreData(clips, gold, pred, vocab, grouped, grouping.shared, counts, columns)
    known = [int(x) for side in sides for x in (side.sum(), len(side))]
    return Part(clips, columns, tables, (known[0], known[1], known[2], known[3])), data


def build_score(
    clips: list[str],
    parts: Sequence[Part],
    source: Callable[[], ScoreData],
    grouping: Grouping,
    names: dict[str, int],
    resamples: int,
    seed: int,
    means: np.ndarray | None = None,
    scores: np.ndarray | None = None,
) -> Score:
    """Put a score together from its blocks.

    Args:
        clips: Names of all clips.
        parts: Blocks in the order of ``clips``.
        source: Gives the labels and groups when they are asked for.
        grouping: What was scored with.
        names: Clips dropped or zeroed, by reason.
        resamples: For the intervals.
        seed: For the intervals.
        means: :func:`exact_means` of all columns, when already known; with ``scores``.
        scores: :func:`score_means` of them.

    Raises:
        ScoreError: no clips, or none with a gold label that the grouping knows.
    """
    if not clips:
        raise ScoreError("no clip left to score: gold and predictions share no usable name")
    columns = np.concatenate([part.columns for part in parts]) if parts[1:] else parts[0].columns
    if means is None or scores is None:
        means = exact_means(columns)
        scores = score_means(means)
    if not means[2:-1:3].all():
        raise ScoreError(
            f"grouping {grouping.name} ({grouping.version}) knows none of the gold labels"
        )
    accuracy, recall, avg, f1, labels_per_clip = scores.tolist()
    known = [sum(numbers) for numbers in zip(*(part.known for part in parts), strict=True)]
    return Score(
        n=len(clips),
        accuracy=accuracy,
        recall=recall,
        avg=avg,
        f1=f1,
        labels_per_clip=labels_per_clip,
        coverage=_share(known[0] + known[2], known[1] + known[3]),
        coverage_gold=_share(known[0], known[1]),
        coverage_pred=_share(known[2], known[3]),
        grouping={"name": grouping.name, "version": grouping.version},
        names=names,
        wheel=_wheel_tables(parts, grouping),
        resamples=resamples,
        seed=seed,
        clips=clips,
        columns=columns,
        shared=grouping.shared,
        source=source,
    )


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 1.0


def _wheel_tables(parts: Sequence[Part], grouping: Grouping) -> dict[str, Any] | None:
    """Scores of every further table, and the year's ranking score."""
    if not parts[0].tables:
        return None
    tables: dict[str, Any] = {}
    for name in parts[0].tables:
        columns = np.concatenate([part.tables[name] for part in parts])
        means = exact_means(np.column_stack([columns, np.zeros(len(columns))]))
        precision, recall, _, f1, _ = score_means(means).tolist()
        tables[name] = {"f1": f1, "precision": precision, "recall": recall}
    ranked: Sequence[str] = getattr(grouping, "ranked_by", ())
    tables["ranking"] = fsum(tables[name]["f1"] for name in ranked) / max(len(ranked), 1)
    return tables
