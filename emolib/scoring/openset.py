"""MER2024-OV set accuracy, recall and Avg, with everything needed to judge them.

Let ``g`` give a label's group. For one clip with gold labels Y and predicted labels P

    accuracy = |g(Y) ∩ g(P)| / |g(P)|,   recall = |g(Y) ∩ g(P)| / |g(Y)|,

both 0 when P is empty. A data set's accuracy and recall are the means over clips, its
``avg`` is the mean of the two, its ``f1`` the harmonic mean of the two *means* (the F_s of
MER2025/2026; not a mean of per-clip F). "Accuracy" is set precision.

Source: MERTools 89120b7, ``MER2024/main-ov.py:52-99``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from math import fsum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from emolib.errors import ScoreError
from emolib.labels import Mode
from emolib.scoring import constant, uncertainty
from emolib.scoring.columns import CHUNK, parse_column
from emolib.scoring.encode import LabelSets, distinct, encode, overlap
from emolib.scoring.grouping import Assignment, Grouped, Grouping

if TYPE_CHECKING:
    import pandas as pd

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
        clearly beat it has shown nothing. Keys: labels, accuracy, recall, avg, f1.
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


def score(
    gold: Mapping[str, Sequence[str]],
    pred: Mapping[str, Sequence[str]],
    grouping: Grouping,
    *,
    missing: Literal["error", "drop", "zero"] = "error",
    extra: Literal["error", "drop"] = "error",
    empty_gold: Literal["error", "drop"] = "error",
    resamples: int = 10_000,
    seed: int = 0,
) -> Score:
    """Score one system's labels against the gold labels.

    Labels are compared lower-cased and otherwise as given: parse texts first with
    :func:`emolib.labels.parse_labels`. Time and memory grow linearly with the clips; a
    million clips take about a second with a grouping that is shared by all clips.

    Args:
        gold: Clip name -> reference labels.
        pred: Clip name -> predicted labels; an empty list scores 0.
        grouping: Which labels are the same, see :func:`emolib.scoring.grouping.open_grouping`.
        missing: Gold clips without a prediction: "error", "drop" from the means, or "zero".
        extra: Predictions without gold: "error" or "drop".
        empty_gold: Clips without gold labels, for which recall is undefined: "error" or "drop".
        resamples: Bootstrap resamples; 0 = no intervals.
        seed: Seed of the resampling.

    Raises:
        ScoreError: names do not match, no clip is left, labels are not lists of strings, or
            the grouping cannot group a clip.
    """
    clips, dropped = match_names(gold, pred, missing, extra)
    clips = _with_gold(clips, [len(gold[name]) for name in clips], empty_gold, dropped)
    nothing: tuple[str, ...] = ()
    encoded = encode(map(gold.__getitem__, clips), [pred.get(name, nothing) for name in clips])
    part, data = _measure(clips, *encoded, grouping)
    return build_score(clips, [part], lambda: data, grouping, dropped, resamples, seed)


def score_texts(
    gold: Mapping[str, object],
    pred: Mapping[str, object],
    grouping: Grouping,
    *,
    mode: Mode = "tolerant",
    missing: Literal["error", "drop", "zero"] = "error",
    extra: Literal["error", "drop"] = "error",
    empty_gold: Literal["error", "drop"] = "error",
    resamples: int = 10_000,
    seed: int = 0,
) -> Score:
    """Parse and score label texts; :func:`score` on parsed labels gives the same numbers.

    Works through the clips in blocks on all processors: a million clips take seconds and
    little memory beyond the texts themselves.

    Args:
        gold: Clip name -> text, e.g. ``"['happy', 'sad']"``.
        pred: Clip name -> text.
        grouping: See :func:`score`.
        mode: Parser, see :func:`emolib.labels.parse_labels`.
        missing: See :func:`score`.
        extra: See :func:`score`.
        empty_gold: See :func:`score`.
        resamples: See :func:`score`.
        seed: See :func:`score`.

    Raises:
        ScoreError: see :func:`score`; also a text on which the official parser crashes.
    """
    clips, dropped = match_names(gold, pred, missing, extra)
    starts = range(0, len(clips), CHUNK)
    cells = [list(map(side.get, clips, repeat(""))) for side in (gold, pred)]

    def work(start: int) -> tuple[Part, int]:
        names = clips[start : start + CHUNK]
        columns = [parse_column(side[start : start + CHUNK], mode) for side in cells]
        for column, title in zip(columns, ("gold", "predicted"), strict=True):
            if column.unparsed and mode == "mer2024":
                raise ScoreError(
                    f"{title} labels of {names[column.unparsed[0]]!r} have no '[', on which the "
                    "official parser crashes: write ['a', 'b'], or parse tolerantly"
                )
        texts = columns[0].lengths > 0
        kept = names
        if not texts.all():
            kept = _with_gold(names, columns[0].lengths.tolist(), empty_gold, {})
        index: dict[str, int] = {}
        sets: list[LabelSets] = []
        for column in columns:
            numbers = [index.setdefault(label, len(index)) for label in column.vocab]
            codes = np.array(numbers, np.int64)[column.codes]
            lengths = column.lengths
            if len(kept) < len(names):
                codes, lengths = codes[np.repeat(texts, lengths)], lengths[texts]
            sets.append(LabelSets(codes, np.concatenate([[0], np.cumsum(lengths)])))
        return _measure(kept, sets[0], sets[1], list(index), grouping)[0], len(columns[1].unparsed)

    if len(starts) < 2:
        done = [work(start) for start in starts]
    else:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            done = list(pool.map(work, starts))
    parts = [part for part, _ in done]
    scored = [name for part in parts for name in part.clips]

    def whole() -> ScoreData:
        sides = [
            parse_column([side.get(name, "") for name in scored], mode) for side in (gold, pred)
        ]
        return _measure(scored, *encode(*(side.lists() for side in sides)), grouping)[1]

    if lost := len(clips) - len(scored):
        dropped["empty_gold_dropped"] = lost
    if unparsed := sum(count for _, count in done):
        dropped["unparsed_predictions"] = unparsed
    return build_score(scored, parts, whole, grouping, dropped, resamples, seed)


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


def _measure(
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


def _with_gold(
    clips: list[str], lengths: list[int], empty_gold: str, dropped: dict[str, int]
) -> list[str]:
    """Clips that have gold labels; the others are an error, or are counted in ``dropped``."""
    if empty_gold not in ("error", "drop"):
        raise ValueError(f"empty_gold={empty_gold!r}: choose error or drop")
    kept = [name for name, length in zip(clips, lengths, strict=True) if length]
    if (lost := len(clips) - len(kept)) and empty_gold == "error":
        first = next(name for name, length in zip(clips, lengths, strict=True) if not length)
        raise ScoreError(
            f"{lost} clips have no gold label (first: {first!r}), so recall is undefined: fix "
            "the gold file or drop them by name (--empty-gold drop)"
        )
    if lost:
        dropped["empty_gold_dropped"] = lost
    return kept


def match_names(
    gold: Mapping[str, object],
    pred: Mapping[str, object],
    missing: str,
    extra: str,
) -> tuple[list[str], dict[str, int]]:
    """Clips to score, in the gold's order, and what was done about the others.

    Raises:
        ScoreError: a name is missing or extra and the option says "error".
    """
    if missing not in ("error", "drop", "zero") or extra not in ("error", "drop"):
        raise ValueError(f"missing={missing!r}, extra={extra!r}: see the docstring for choices")
    dropped: dict[str, int] = {}
    clips = list(gold)
    if gold.keys() == pred.keys():
        return clips, dropped
    lost = [name for name in clips if name not in pred]
    odd = [name for name in pred if name not in gold]
    if lost and missing == "error":
        raise ScoreError(
            f"{len(lost)} of {len(clips)} gold clips have no prediction (first: {lost[0]!r}): "
            "predict them, or say so: --missing zero scores them 0, --missing drop leaves them out"
        )
    if odd and extra == "error":
        raise ScoreError(
            f"{len(odd)} predictions have no gold clip (first: {odd[0]!r}): check that both files "
            "are of the same set, or say so with --extra drop"
        )
    if lost:
        dropped["missing_zeroed" if missing == "zero" else "missing_dropped"] = len(lost)
    if odd:
        dropped["extra_dropped"] = len(odd)
    return clips if missing == "zero" else [name for name in clips if name in pred], dropped
