"""The best constant list: what a system without a model would score on the same clips."""

from __future__ import annotations

from math import ceil, fsum
from typing import TYPE_CHECKING, Any

import numpy as np

from emolib.scoring.encode import distinct

if TYPE_CHECKING:
    from emolib.scoring.result import ScoreData

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
        ``{"labels": [...], "accuracy", "recall", "avg", "f1", "same_length": {...}}``; the last
        has the same keys for the best list no longer than the system's own mean list.
    """
    build = _greedy_per_clip
    if data.shared:
        build = _exact if len(data.counts) == 1 else _greedy_shared
    budget = max(1, ceil(data.columns[:, -1].mean()))
    return build(data, _LONGEST) | {"same_length": build(data, budget)}


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


def _greedy_shared(data: ScoreData, longest: int) -> dict[str, Any]:
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
        value = np.round((p + r).mean(axis=0) / 2, 12)
        value[chosen] = -1
        top = int(np.argmax(value))
        if value[top] <= best[2] + 1e-12:
            break
        p, r = p[:, top], r[:, top]
        f1 = 2 * p * r / np.maximum(p + r, 1e-300)
        best = np.array([p.mean(), r.mean(), (p + r).mean() / 2, f1.mean()])
        size = size + new[:, top : top + 1]
        hits = hits + (gain * new)[:, :, top : top + 1]
        new &= group != group[:, top : top + 1]
        chosen.append(top)
    return _result(data, [int(codes[c]) for c in chosen] or [int(codes[0])], best)


def _greedy_per_clip(data: ScoreData, longest: int) -> dict[str, Any]:
    codes = _gold_codes(data)[:_CANDIDATES]
    column = np.full(len(data.vocab), -1)
    column[codes] = np.arange(len(codes))
    order = sorted(range(len(data.clips)), key=data.clips.__getitem__)
    rows = np.sort(np.random.default_rng(0).permutation(order)[:_CLIPS])
    chosen = _choose(_constant_groups(data, column, rows), rows, data, min(longest, len(codes)))
    picked = [codes[c] for c in chosen] or codes[:1]
    column[:] = -1
    column[picked] = np.arange(len(picked))
    sums: list[tuple[float, float]] = []
    for start in range(0, len(data.clips), _CLIPS):
        part = np.arange(start, min(start + _CLIPS, len(data.clips)))
        groups, hit = _constant_groups(data, column, part)
        new = np.ones(groups.shape, bool)
        for k in range(1, groups.shape[1]):
            new[:, k] = (groups[:, :k] != groups[:, k : k + 1]).all(axis=1)
        hits = (new & hit).sum(axis=1)
        accuracy, recall = hits / new.sum(axis=1), hits / data.counts[0].gold[part]
        sums.append((fsum(accuracy.tolist()), fsum(recall.tolist())))
    p, r = np.array([fsum(side) for side in zip(*sums, strict=True)]) / len(data.clips)
    return _result(data, picked, np.array([p, r, (p + r) / 2, 2 * p * r / max(p + r, 1e-300)]))


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
    groups_hit: tuple[np.ndarray, np.ndarray], rows: np.ndarray, data: ScoreData, longest: int
) -> list[int]:
    groups, hit = groups_hit
    gold = data.counts[0].gold[rows]
    size, hits = np.zeros(len(rows)), np.zeros(len(rows))
    covered = np.zeros(groups.shape, bool)  # candidate's group is already in the list
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < longest:
        new = ~covered
        total = size[:, None] + new
        with_hits = hits[:, None] + (new & hit)
        value = (with_hits / np.maximum(total, 1) + with_hits / gold[:, None]).mean(axis=0) / 2
        value[chosen] = -1
        top = int(np.argmax(np.round(value, 12)))
        if value[top] <= best + 1e-12:
            break
        best = float(value[top])
        size, hits = total[:, top], with_hits[:, top]
        covered |= groups == groups[:, top : top + 1]
        chosen.append(top)
    return chosen
