"""Folds that keep what belongs together on one side, and never look at labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from emolib.errors import ScoreError


def split(
    names: Collection[str], folds: int, seed: int = 0, blocks: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Put clips into folds of nearly equal size, whole blocks at a time.

    Args:
        names: Clips; their order does not matter.
        folds: Number of folds, 2 or more.
        seed: Seed of the shuffle.
        blocks: Clip -> what it must not be parted from (dialogue, speaker, same words);
            clips without an entry stand alone.

    Returns:
        Clip -> fold, sorted by clip.

    Raises:
        ScoreError: fewer blocks than folds.
    """
    members: dict[str, list[str]] = {}
    for name in sorted(names):
        block = (blocks or {}).get(name)
        members.setdefault(f"clip {name}" if block is None else f"block {block}", []).append(name)
    if folds < 2 or len(members) < folds:
        raise ScoreError(
            f"{len(members)} independent clips cannot make {folds} folds: give 2 folds or more, "
            "and no more than there are blocks of clips"
        )
    keys = sorted(members)
    order = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    order.sort(key=lambda key: -len(members[key]))  # large blocks first, else as shuffled
    sizes = [0] * folds
    fold_of = {}
    for key in order:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[key])
        fold_of.update(dict.fromkeys(members[key], fold))
    return dict(sorted(fold_of.items()))
