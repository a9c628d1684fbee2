"""Figures of the discriminative model: confusions, classes, calibration, leak."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emolib.models.discriminative.measures import ClassScore, Reliability


def confusion_matrix(score: ClassScore, classes: Sequence[str], ax: Axes) -> Axes:
    """Gold class in rows, predicted in columns; colour is the share of the row, text the count."""
    counts = score.confusion
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = share[row, column] > 0.5
            colour = "white" if dark else "black"
            ax.text(column, row, str(count), ha="center", va="center", color=colour)
    ticks = range(len(classes))
    ax.set_xticks(ticks, classes, rotation=45, ha="right")
    ax.set_yticks(ticks, classes)
    ax.set(xlabel="predicted", ylabel="gold", title=f"{score.n} clips")
    return ax


def confusion_matrices(scores: Mapping[str, ClassScore], classes: Sequence[str]) -> Figure:
    """:func:`confusion_matrix` of every system, side by side."""
    figure = Figure(figsize=(4.2 * len(scores), 4.4), layout="constrained")
    axes = figure.subplots(1, len(scores), squeeze=False)
    for ax, (name, score) in zip(axes.flat, scores.items(), strict=True):
        confusion_matrix(score, classes, ax)
        ax.set_title(textwrap.fill(f"{name} (n = {score.n})", 40), fontsize=9)
    return figure


def class_f1(scores: Mapping[str, ClassScore], classes: Sequence[str], ax: Axes) -> Axes:
    """F1 of each class, one bar a system."""
    width = 0.8 / max(1, len(scores))
    for number, (name, score) in enumerate(scores.items()):
        where = np.arange(len(classes)) + (number - (len(scores) - 1) / 2) * width
        ax.bar(where, score.f1, width, label=textwrap.fill(name, 30))
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set(ylabel="F1", ylim=(0, 1))
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def calibration(curves: Mapping[str, Reliability], ax: Axes) -> Axes:
    """Share that is right over stated probability; point size follows the number of clips."""
    ax.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, curve in curves.items():
        label = f"{textwrap.fill(name, 30)}: ECE {curve.ece:.2f}"
        size = 10 + 120 * curve.count / max(1, curve.count.max())
        [line] = ax.plot(curve.stated, curve.right, linewidth=1)
        ax.scatter(curve.stated, curve.right, s=size, color=line.get_color(), label=label)
    ax.set(xlabel="stated probability", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def interval_dots(scores: Mapping[str, ClassScore], metric: str, ax: Axes) -> Axes:
    """One metric with its 95 % interval, a row a system; the line is always the commonest class."""
    for row, score in enumerate(scores.values()):
        low, high = score.ci95[metric]
        ax.plot([low, high], [row, row], color=f"C{row}")
        ax.plot(score.values[metric], row, "o", color=f"C{row}")
    first = next(iter(scores.values()))
    ax.axvline(first.majority[metric], color="0.6", linestyle="--")
    ax.set_yticks(range(len(scores)), [textwrap.fill(name, 24) for name in scores])
    ax.invert_yaxis()
    ax.set(xlabel=f"{metric} (95 %), dashed: commonest class", xlim=(0, 1))
    return ax
