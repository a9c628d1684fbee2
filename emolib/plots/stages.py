"""Figures of the data generation and training stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emolib.agreement import shared_words
from emolib.filtering import Pair
from emolib.selection import keep_curve


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


def judge_and_words(pairs: Sequence[Pair], threshold: float, ax: Axes) -> Axes:
    """The judge's scores beside the share of emotion words the captions have in common."""
    bins: dict[str, list[float]] = {"none": [], "some": [], "all": []}
    for pair, share in zip(pairs, shared_words(pairs), strict=True):
        if pair.similarity is not None and share is not None:
            bins["none" if share == 0 else "all" if share == 1 else "some"].append(pair.similarity)
    filled = {name: values for name, values in bins.items() if values}
    if filled:
        ax.boxplot(list(filled.values()), tick_labels=[f"{n}\n{len(v)}" for n, v in filled.items()])
    ax.axhline(threshold, color="C3")
    ax.set(xlabel="emotion words in common, pairs", ylabel="similarity", ylim=(-0.02, 1.02))
    return ax


def orders(pairs: Sequence[Pair], threshold: float, ax: Axes) -> Axes:
    """The score of each pair against its score with the captions swapped."""
    points = [p.orders for p in pairs if len(p.orders) == 2 and None not in p.orders]
    if points:
        ax.plot(*zip(*points, strict=True), "o", alpha=0.4, color="C0")
    else:
        ax.set_title("asked in one order only")
    ax.plot([0, 1], [0, 1], color="0.7", zorder=0)
    ax.axvline(threshold, color="C3")
    ax.axhline(threshold, color="C3")
    ax.set(xlabel="as they came", ylabel="swapped", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
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
