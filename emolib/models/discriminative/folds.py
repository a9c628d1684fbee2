"""Seeded folds: groups stay whole, classes are spread evenly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emolib.errors import DataError


def make_folds(classes: Sequence[object], groups: Sequence[str], k: int, seed: int) -> np.ndarray:
    """Deal clips into ``k`` folds.

    Groups are dealt largest first, in random order among equals, each to the fold that then
    has the most even spread of classes and sizes. Cost: groups x folds x classes.

    Args:
        classes: Class of each clip.
        groups: What must stay together; "" = the clip alone.
        k: Folds, at least 2.
        seed: Seed of the order.

    Returns:
        int64 [clips], fold of each, every fold used.

    Raises:
        DataError: fewer groups than folds.
    """
    index, names = group_index(groups)
    if len(names) < k:
        raise DataError(
            f"{len(classes)} clips in {len(names)} groups cannot make {k} folds: ask for fewer "
            "folds, or set by_group: false if the groups may be divided"
        )
    _, y = np.unique(np.asarray([str(c) for c in classes]), return_inverse=True)
    counts = np.zeros((len(names), int(y.max()) + 1))
    np.add.at(counts, (index, y), 1.0)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    # A fold's load: share of every class, and of all clips, it would hold.
    shares = np.column_stack([counts / counts.sum(axis=0), counts.sum(axis=1) / counts.sum()])
    load = np.zeros((k, shares.shape[1]))
    fold_of = np.zeros(len(names), dtype=np.int64)
    for number, group in enumerate(order):
        # Adding s to fold f raises the sum of squares by 2 load_f s + s²: take the least.
        cost = load @ shares[group]
        empty = np.flatnonzero(load[:, -1] == 0)
        pick = np.flatnonzero(cost <= cost.min() + 1e-12)
        if len(order) - number <= empty.size:
            pick = empty
        chosen = int(pick[rng.integers(len(pick))])
        fold_of[group] = chosen
        load[chosen] += shares[group]
    return fold_of[index]


def inner_split(
    classes: Sequence[object], groups: Sequence[str], share: float, seed: int
) -> np.ndarray:
    """Mark about ``share`` of the clips for early stopping and calibration.

    Returns:
        bool [clips], stratified, groups whole; with fewer than two groups none of them is whole.
    """
    parts = max(2, round(1 / share))
    _, names = group_index(groups)
    if len(names) < 2:
        groups = [""] * len(groups)
    parts = min(parts, len(names) if len(names) >= 2 else len(groups))
    return make_folds(classes, groups, parts, seed) == 0


def group_index(groups: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Number the groups; every "" is a group of its own."""
    names: dict[str, int] = {}
    index = np.zeros(len(groups), dtype=np.int64)
    for k, group in enumerate(groups):
        index[k] = names.setdefault(group or f"\0{k}", len(names))
    return index, list(names)
