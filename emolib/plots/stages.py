"""Figures of the data generation and training stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emolib.filtering import Pair, keep_curve


def similarities(pairs: Sequence[Pair], threshold: float, ax: Axes) -> Axes:
    """Histogram of the judge's scores with the threshold; the title counts unparsed answers."""
    scores = [p.similarity for p in pairs if p.similarity is not None]
    ax.hist(scores, bins=np.linspace(0, 1, 21).tolist(), color="C0")
    ax.axvline(threshold, color="C3", label=f"threshold {threshold}")
    ax.set(
        xlabel="similarity",
        ylabel="pairs",
        title=f"{len(scores)} scored, {len(pairs) - len(scores)} without a score",
    )
    ax.legend()
    return ax


def keep_rate(pairs: Sequence[Pair], threshold: float, ax: Axes) -> Axes:
    """Share of pairs every threshold would keep."""
    curve = keep_curve(pairs, np.linspace(0, 1, 101).tolist())
    ax.step([row["threshold"] for row in curve], [row["rate"] for row in curve], where="post")
    ax.axvline(threshold, color="C3")
    ax.set(xlabel="threshold", ylabel="share kept", xlim=(0, 1), ylim=(0, 1.02))
    return ax


def loss_curve(history: Sequence[Mapping[str, Any]], ax: Axes) -> Axes:
    """Training (and, where there is one, validation) loss over steps."""
    train = [(row["step"], row["loss"]) for row in history if "loss" in row]
    held_out = [(row["step"], row["eval_loss"]) for row in history if "eval_loss" in row]
    for points, style, label in ((train, "-", "training"), (held_out, "o-", "validation")):
        if points:
            steps, losses = zip(*points, strict=True)
            ax.plot(steps, losses, style, label=label)
    ax.set(xlabel="step", ylabel="loss")
    if train or held_out:
        ax.legend()
    return ax
