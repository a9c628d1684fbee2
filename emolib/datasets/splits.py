"""Seeded splits that never divide a source video, recorded by clip name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emolib.datasets.clip import Clip
from emolib.datasets.table import few
from emolib.errors import DataError
from emolib.files import read_json, write_json

FORMAT = "emolib split 1"


def split_clips(clips: Sequence[Clip], test: int, seed: int = 0) -> list[Clip]:
    """Draw ``test`` clips for testing, the others are for training.

    Clips of one ``group`` (source video, speaker) stay together; a clip without group is a
    group of its own. Groups are drawn at random and taken while they fit.

    Args:
        clips: Names unique. The order plays no part.
        test: Number of test clips; the paper's is 66 of 332.
        seed: The draw's.

    Returns:
        The clips in their order with ``split`` "train" or "test". Exactly ``test`` of them are
        "test", unless whole groups cannot add up to it: then fewer, at least 90 %.

    Raises:
        DataError: fewer clips than asked for, or groups too large.

    Source: paper section 3.1 (266 to train, 66 to test; which ones is not published).
    """
    if not 0 < test < len(clips):
        raise DataError(f"{test} test clips of {len(clips)}: give a number between")
    groups: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for clip in clips:
        groups[(True, clip.group) if clip.group else (False, clip.name)].append(clip.name)
    keys = sorted(groups)
    chosen: set[str] = set()
    for k in np.random.default_rng(seed).permutation(len(keys)):
        names = groups[keys[int(k)]]
        if len(chosen) + len(names) <= test:
            chosen.update(names)
    if len(chosen) < 0.9 * test:
        largest = max(map(len, groups.values()))
        raise DataError(
            f"{len(groups)} groups (the largest has {largest} clips) give only {len(chosen)} of "
            f"{test} test clips without dividing one; try another seed or number"
        )
    return [replace(clip, split="test" if clip.name in chosen else "train") for clip in clips]


def write_split(path: Path, clips: Sequence[Clip], **about: object) -> Path:
    """Record which clip is in which split, and how that came about (plain values)."""
    names: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        names[clip.split].append(clip.name)
    splits = {split: sorted(found) for split, found in names.items()}
    return write_json(path, {"format": FORMAT, "about": about, "splits": splits})


def apply_split(clips: Sequence[Clip], path: Path) -> list[Clip]:
    """Give clips the split a file records; clips it does not name are left out.

    Raises:
        DataError: not such a file, or it names clips that are not there.
    """
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        split_of = {str(name): str(s) for s, names in content["splits"].items() for name in names}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(f"{path}: not a file of `emolib datasets split`") from None
    missing = sorted(split_of.keys() - {clip.name for clip in clips})
    if missing:
        raise DataError(f"{path}: {few(missing)} not in the data set")
    return [replace(c, split=split_of[c.name]) for c in clips if c.name in split_of]
