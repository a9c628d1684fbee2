"""Which moments of a clip are looked at: pure functions of time, no media."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def clip_rng(seed: int, name: str) -> np.random.Generator:
    """Make the random generator of one clip.

    It depends on ``seed`` and ``name`` alone, so neither the order of the clips nor which
    of them are processed changes what is drawn.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def segment_times(
    start: float, duration: float, segments: int = 6, *, rng: np.random.Generator
) -> np.ndarray:
    """Cut [start, start + duration) into equal parts and draw one uniform moment from each.

    Args:
        start: When the first frame is shown, seconds.
        duration: How long the clip is on screen, seconds, >= 0.
        segments: Number of parts.
        rng: Where the moments are drawn from; ``segments`` numbers are taken.

    Returns:
        float64 [segments], ascending, in seconds.

    Raises:
        ValueError: no parts, a negative or non-finite duration or start.

    Source: arXiv 2408.11286, section 2.1 (six parts, one random frame of each).
    """
    _check(start, duration, segments)
    return start + duration * (np.arange(segments) + rng.random(segments)) / segments


def uniform_times(start: float, duration: float, n: int) -> np.ndarray:
    """Give the centres of ``n`` equal parts of [start, start + duration).

    Returns:
        float64 [n], ascending, in seconds.

    Raises:
        ValueError: as :func:`segment_times`.
    """
    _check(start, duration, n)
    return start + duration * (np.arange(n) + 0.5) / n


def shown_at(times: Sequence[float] | np.ndarray, at: Sequence[float] | np.ndarray) -> np.ndarray:
    """Tell which frame is on screen at each moment: the last one shown by then.

    Args:
        times: Presentation times of all frames, ascending, at least one.
        at: Moments in the same unit; before the first frame counts as the first.

    Returns:
        int64 [len(at)], indices into ``times``.

    Raises:
        ValueError: ``times`` is empty.
    """
    if len(times) == 0:
        raise ValueError("no frames to choose from")
    found = np.searchsorted(np.asarray(times), np.asarray(at), side="right") - 1
    return np.maximum(found, 0).astype(np.int64)


def _check(start: float, duration: float, parts: int) -> None:
    if parts < 1:
        raise ValueError(f"need at least one part, asked for {parts}")
    if not (math.isfinite(start) and math.isfinite(duration) and duration >= 0):
        raise ValueError(f"start {start} and duration {duration} must be finite, duration >= 0")
