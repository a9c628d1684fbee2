"""The best constant list: what a system without a model would score on the same clips."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from emolib.scoring.encode import distinct
from emolib.scoring.openset import ClipCounts, columns_of, exact_means, score_means

if TYPE_CHECKING:
    from emolib.scoring.result import ScoreData

Goal = Literal["avg", "f1"]

_LONGEST = 2_000  # labels in a list; real vocabularies are far smaller
_CANDIDATES = 256  # per-clip groupings only: most frequent gold labels tried
_CLIPS = 4_000  # per-clip groupings only: clips the list is chosen on


def best_constant(data: ScoreData) -> dict[str, Any]:
    """Find the list of gold labels with the highest Avg when given for every clip.

    With a grouping shared by all clips and one view, the result is exact: Avg is then a sum
    over the chosen groups. With several wheels, or groups that change from clip to clip, labels
    are added one by one while Avg rises (greedy), there among the 256 most frequent gold labels.
    Under per-clip groups a label that the clip's answer does not hold can only miss, so the
    value is a lower bound there.

    Returns:
        ``{"labels": [...], "accuracy", "recall", "avg", "f1", "same_length": {...}, "best_f1":
        {...}}``; the last two have the same keys for the best list no longer than the system's
        own mean list (rounded up), and for the list with the highest F1, greedily built.
    """
    greedy = _greedy_shared if data.shared else _greedy_per_clip
    build = _exact if data.shared and len(data.counts) == 1 else greedy
    budget = max(1, ceil(data.columns[:, -1].mean()))
    best, short = build(data, _LONGEST), build(data, budget)
    for_f1 = greedy(data, _LONGEST, "f1")
    best_f1 = max(for_f1, short, best, key=lambda found: float(found["f1"]))
    return best | {"same_length": short, "best_f1": dict(best_f1)}


def constant_columns(data: ScoreData, labels: Sequence[str]) -> np.ndarray:
    """What one list, given for every clip, scores clip by clip.

    Args:
        data: Clips and their groups.
        labels: Labels of the vocabulary, each once; those no gold list has can only miss under
            per-clip groups and are left out under shared ones.

    Returns:
        float64 [clips, 3 * views + 1], as :attr:`emolib.scoring.result.Score.columns`. Cost: one
        sort of the gold labels a view; per-clip groups: clips times labels.
    """
    index = {label: code for code, label in enumerate(data.vocab)}
    codes = np.array([index[label] for label in labels], np.int64)
    counts = _shared_counts(data, codes) if data.shared else [_per_clip_counts(data, codes)]
    return np.column_stack([columns_of(counts), np.full(len(data.clips), float(len(codes)))])


def _shared_counts(data: ScoreData, codes: np.ndarray) -> list[ClipCounts]:
    found = []
    for number, view in enumerate(data.grouped.views):
        size = max(len(view.names), 1)
        group_of = np.full(len(data.vocab), -1)
        group_of[data.gold.codes] = view.gold
        chosen = np.zeros(size, bool)
        chosen[group_of[codes][group_of[codes] >= 0]] = True
        keys = distinct(data.gold.rows, view.gold, size)
        hit = keys[chosen[keys % size]] // size
        n = len(data.clips)
        pred = np.full(n, chosen.sum())
        found.append(ClipCounts(data.counts[number].gold, pred, np.bincount(hit, minlength=n)))
    return found


def _per_clip_counts(data: ScoreData, codes: np.ndarray) -> ClipCounts:
    column = np.full(len(data.vocab), -1)
    column[codes] = np.arange(len(codes))
    pred, hits = [], []
    for start in range(0, len(data.clips), _CLIPS):
        part = np.arange(start, min(start + _CLIPS, len(data.clips)))
        groups, hit = _constant_groups(data, column, part)
        new = np.ones(groups.shape, bool)
        for k in range(1, groups.shape[1]):
            new[:, k] = (groups[:, :k] != groups[:, k : k + 1]).all(axis=1)
        pred.append(new.sum(axis=1))
        hits.append((new & hit).sum(axis=1))
    return ClipCounts(data.counts[0].gold, np.concatenate(pred), np.concatenate(hits))


def _result(data: ScoreData, labels: list[int], scores: np.ndarray) -> dict[str, Any]:
    accuracy, recall, avg, f1 = (float(x) for x in scores[:4])
    return {
        "labels": [data.vocab[code] for code in labels],
        "accuracy": accuracy,
        "recall": recall,
        "avg": avg,
        "f1": f1,
    }


def _gains(data: ScoreData, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Per group: share of clips that have it, and its mean share of a clip's gold groups."""
    groups = data.grouped.views[view]
    size = max(len(groups.names), 1)
    keys = distinct(data.gold.rows, groups.gold, size)
    rows, ids = keys // size, keys % size
    n = data.counts[view].valid.sum()
    # Whole numbers are counted first, so that the order of clips cannot change a digit.
    lengths = data.counts[view].gold[rows]
    width = int(lengths.max()) + 1
    table = np.bincount(ids * width + lengths, minlength=size * width).reshape(size, width)
    return table.sum(axis=1) / n, table @ (1 / np.maximum(np.arange(width), 1)) / n


def _common_label(data: ScoreData, view: int) -> np.ndarray:
    """Most frequent gold label of every group, int64 [groups], -1 = not in gold."""
    groups = data.grouped.views[view]
    pairs = distinct(data.gold.rows, data.gold.codes, len(data.vocab)) % len(data.vocab)
    frequency = np.bincount(pairs, minlength=len(data.vocab))
    group_of = np.full(len(data.vocab), -1)
    group_of[data.gold.codes] = groups.gold
    label = np.full(max(len(groups.names), 1), -1)
    for code in sorted(range(len(data.vocab)), key=lambda c: (frequency[c], data.vocab[c])):
        if group_of[code] >= 0 and frequency[code]:
            label[group_of[code]] = code
    return label


def _exact(data: ScoreData, longest: int) -> dict[str, Any]:
    freq, weight = _gains(data, 0)
    label = _common_label(data, 0)
    best, chosen = np.zeros(4), [int(label[label >= 0][0])]
    names = np.array([data.vocab[code] if code >= 0 else "" for code in label])
    for k in range(1, min(longest, int((label >= 0).sum())) + 1):
        worth = np.where(label >= 0, freq / k + weight, -1.0)
        top = np.lexsort([names, -np.round(worth, 12)])[:k]
        p, r = freq[top].sum() / k, weight[top].sum()
        if (p + r) / 2 > best[2] + 1e-12:
            best = np.array([p, r, (p + r) / 2, 2 * p * r / (p + r)])
            chosen = [int(label[group]) for group in top]
    return _result(data, chosen, best)


def _gold_codes(data: ScoreData) -> list[int]:
    """Gold labels, most frequent first, ties by spelling."""
    counts = np.bincount(data.gold.codes, minlength=len(data.vocab))
    codes = np.flatnonzero(counts).tolist()
    return sorted(codes, key=lambda code: (-counts[code], data.vocab[code]))


def _greedy_shared(data: ScoreData, longest: int, goal: Goal = "avg") -> dict[str, Any]:
    codes = np.array(_gold_codes(data))
    freq, weight, groups = [], [], []
    for number, view in enumerate(data.grouped.views):
        group_of = np.full(len(data.vocab), -1)
        group_of[data.gold.codes] = view.gold
        groups.append(group_of[codes])
        gains = _gains(data, number)
        freq.append(np.where(groups[-1] >= 0, gains[0][groups[-1]], 0))
        weight.append(np.where(groups[-1] >= 0, gains[1][groups[-1]], 0))
    group, gain = np.array(groups), np.array([freq, weight])  # [views, labels], [2, views, labels]
    new = group >= 0  # the label brings a group that the list does not have yet
    size, hits = np.zeros((len(group), 1)), np.zeros((2, len(group), 1))
    chosen: list[int] = []
    best = np.zeros(4)
    while len(chosen) < min(longest, len(codes)):
        p = (hits[0] + gain[0] * new) / np.maximum(size + new, 1)
        r = hits[1] + gain[1] * new
        f1 = 2 * p * r / np.maximum(p + r, 1e-300)
        value = np.round((f1 if goal == "f1" else (p + r) / 2).mean(axis=0), 12)
        value[chosen] = -1
        top = int(np.argmax(value))
        if value[top] <= best[3 if goal == "f1" else 2] + 1e-12:
            break
        p, r, f1 = p[:, top], r[:, top], f1[:, top]
        best = np.array([p.mean(), r.mean(), (p + r).mean() / 2, f1.mean()])
        size = size + new[:, top : top + 1]
        hits = hits + (gain * new)[:, :, top : top + 1]
        new &= group != group[:, top : top + 1]
        chosen.append(top)
    return _result(data, [int(codes[c]) for c in chosen] or [int(codes[0])], best)


def _greedy_per_clip(data: ScoreData, longest: int, goal: Goal = "avg") -> dict[str, Any]:
    codes = _gold_codes(data)[:_CANDIDATES]
    column = np.full(len(data.vocab), -1)
    column[codes] = np.arange(len(codes))
    order = sorted(range(len(data.clips)), key=data.clips.__getitem__)
    rows = np.sort(np.random.default_rng(0).permutation(order)[:_CLIPS])
    found = _constant_groups(data, column, rows)
    chosen = _choose(found, data.counts[0].gold[rows], min(longest, len(codes)), goal)
    picked = [codes[c] for c in chosen] or codes[:1]
    columns = constant_columns(data, [data.vocab[code] for code in picked])
    return _result(data, picked, score_means(exact_means(columns)))


def _constant_groups(
    data: ScoreData, column: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Group of every candidate label in every chosen clip, and whether gold has that group.

    Returns:
        int64 [rows, candidates] (a label the clip does not hold gets a number of its own) and
        bool of the same shape.
    """
    view = data.grouped.views[0]
    size = max(len(view.names), 1)
    width = int(column.max()) + 1
    groups = np.tile(size + np.arange(width), (len(rows), 1))
    hit = np.zeros(groups.shape, bool)
    position = np.full(len(data.clips), -1)
    position[rows] = np.arange(len(rows))
    gold_keys = distinct(data.gold.rows, view.gold, size)
    for sets, ids in ((data.gold, view.gold), (data.pred, view.pred)):
        clip, candidate = sets.rows, column[sets.codes]
        keep = (position[clip] >= 0) & (candidate >= 0)
        at = position[clip[keep]], candidate[keep]
        groups[at] = ids[keep]
        keys = clip[keep] * size + ids[keep]
        found = np.minimum(np.searchsorted(gold_keys, keys), len(gold_keys) - 1)
        hit[at] = gold_keys[found] == keys
    return groups, hit


def _choose(
    groups_hit: tuple[np.ndarray, np.ndarray], gold: np.ndarray, longest: int, goal: Goal
) -> list[int]:
    groups, hit = groups_hit
    size, hits = np.zeros(len(gold)), np.zeros(len(gold))
    covered = np.zeros(groups.shape, bool)  # candidate's group is already in the list
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < longest:
        new = ~covered
        total = size[:, None] + new
        with_hits = hits[:, None] + (new & hit)
        p = (with_hits / np.maximum(total, 1)).mean(axis=0)
        r = (with_hits / gold[:, None]).mean(axis=0)
        value = 2 * p * r / np.maximum(p + r, 1e-300) if goal == "f1" else (p + r) / 2
        value[chosen] = -1
        top = int(np.argmax(np.round(value, 12)))
        if value[top] <= best + 1e-12:
            break
        best = float(value[top])
        size, hits = total[:, top], with_hits[:, top]
        covered |= groups == groups[:, top : top + 1]
        chosen.append(top)
    return chosen
