"""Figures of co-judgment: what each system brings, what is lost without it, single cases."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emolib.scoring import Comparison, Score

if TYPE_CHECKING:
    from emolib.strategies import Point

RIGHT, WRONG = "#1a7f37", "#b3261e"
Line = tuple[str, Sequence[tuple[str, bool]]]


def differences(comparisons: Mapping[str, Comparison], ax: Axes, title: str) -> Axes:
    """Paired differences of Avg (filled) and F1 (open) with their 95 % intervals.

    Args:
        comparisons: Name -> comparison, top to bottom.
        ax: Where to draw.
        title: Above it.
    """
    for row, found in enumerate(comparisons.values()):
        for metric, shift, marker, face in (("avg", -0.12, "o", "C0"), ("f1", 0.12, "s", "white")):
            value, (low, high) = found.difference[metric], found.ci95[metric]
            ax.plot([low, high], [row + shift] * 2, color="C0", linewidth=1)
            ax.plot(value, row + shift, marker, color="C0", markerfacecolor=face)
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_yticks(np.arange(len(comparisons)), [textwrap.fill(name, 38) for name in comparisons])
    ax.invert_yaxis()
    ax.set_xlabel("difference of Avg (filled) and F1 (open)")
    ax.set_title(title, fontsize=10)
    ax.tick_params(labelsize=8)
    return ax


def brought(made: Mapping[str, Any], ax: Axes) -> Axes:
    """Label groups a clip of each system: right and wrong, named by it alone or by others too.

    Args:
        made: Table of :func:`emolib.strategies.system_table`.
        ax: Where to draw.
    """
    for row, (_, named, right, alone, right_alone, _) in enumerate(made["rows"]):
        hits, only = named * (right or 0), named * (alone or 0)
        only_hits = only * (right_alone or 0)
        parts = (
            (hits - only_hits, RIGHT, 1.0, "right, others too"),
            (only_hits, RIGHT, 0.45, "right, it alone"),
            (only - only_hits, WRONG, 0.45, "wrong, it alone"),
            (named - hits - only + only_hits, WRONG, 1.0, "wrong, others too"),
        )
        left = 0.0
        for width, color, alpha, label in parts:
            shown = label if row == 0 else None
            ax.barh(row, width, left=left, color=color, alpha=alpha, label=shown)
            left += width
    names = [textwrap.fill(str(row[0]), 28) for row in made["rows"]]
    ax.set_yticks(np.arange(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("label groups a clip")
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=7)
    return ax


def operating_points(
    systems: Mapping[str, Sequence[Score]], rules: Mapping[str, Score], ax: Axes
) -> Axes:
    """Systems and rules in the plane of accuracy and recall, over lines of equal F1.

    Args:
        systems: Kind of system -> scores, each a small point.
        rules: Rule -> score, each a large marker with its 95 % intervals.
        ax: Where to draw.
    """
    x = np.linspace(0.01, 1, 400)
    for level in np.arange(0.2, 0.9, 0.1):
        shown = x > level / 2
        y = level * x[shown] / (2 * x[shown] - level)
        inside = y <= 1
        ax.plot(x[shown][inside], y[inside], color="0.8", linewidth=0.8, zorder=0)
        ax.annotate(
            f"F1 {level:.1f}", (level, level), fontsize=8, color="0.4", ha="center", zorder=0
        )
    for number, (kind, scores) in enumerate(systems.items()):
        ax.plot(
            [score.accuracy for score in scores],
            [score.recall for score in scores],
            "osv^"[number % 4],
            color=("C0", "C1", "C4", "C5")[number % 4],
            markersize=5,
            alpha=0.75,
            label=kind,
        )
    for number, (rule, score) in enumerate(rules.items()):
        ax.errorbar(
            *(score.accuracy, score.recall),
            xerr=_ends(score, "accuracy"),
            yerr=_ends(score, "recall"),
            fmt="DsP*X"[number % 5],
            color=("0.25", "C2", "C9", "C3", "C6")[number % 5],
            markersize=(8, 8, 9, 14, 9)[number % 5],
            markeredgecolor="white",
            capsize=2,
            linewidth=1,
            label=f"{rule}: F1 {score.f1:.3f}",
            zorder=3,
        )
    ax.set(xlabel="accuracy (set precision)", ylabel="recall")
    ax.set_aspect("equal")
    ax.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    return ax


def _ends(score: Score, metric: str) -> np.ndarray:
    """Distances from a value to the ends of its interval, float64 [2, 1]."""
    value, (low, high) = getattr(score, metric), score.ci95[metric]
    return np.maximum([[value - low], [high - value]], 0)


def learning_curve(points: Sequence[Point], ax: Axes, counted: str) -> Axes:
    """F1 against a number of clips or sources, with majority beside it.

    The line is the mean over random choices, the band goes from the lowest to the highest. Filled
    points lie above majority with a paired 95 % interval above zero.

    Args:
        points: Points of the curve.
        ax: Where to draw.
        counted: What the numbers count.
    """
    x = np.arange(len(points))
    mean = [float(np.mean(one.f1)) for one in points]
    low, high = [min(one.f1) for one in points], [max(one.f1) for one in points]
    ax.fill_between(x, low, high, color="C3", alpha=0.15, linewidth=0)
    ax.plot(x, mean, color="C3", label="calibrated fusion")
    for at, one, value in zip(x, points, mean, strict=True):
        certain = one.against.ci95["f1"][0] > 0
        ax.plot(at, value, "o", color="C3", markerfacecolor="C3" if certain else "white")
    ax.plot(x, [one.against.b["f1"] for one in points], "s--", color="C2", label="majority")
    ax.set_xticks(x, [str(one.number) for one in points])
    ax.set(xlabel=counted, ylabel="F1")
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.legend(fontsize=8)
    return ax


def cases(
    frames: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    lines: Sequence[Sequence[Line]],
    *,
    height: float = 2.6,
) -> Figure:
    """One row a clip: its frames, and beside them what everybody says of it.

    Right labels are green, wrong ones red with an x before them.

    Args:
        frames: For each clip uint8 RGB frames [height, width, 3].
        titles: Name and words of each clip.
        lines: For each clip (who says, [(label, right)]).
        height: Of one row, in inches.
    """
    columns = max((len(row) for row in frames), default=1) or 1
    figure = Figure(figsize=(height * columns * 0.75 + 6, height * max(1, len(titles))))
    grid = {"width_ratios": [1] * columns + [6 / (height * 0.75)], "wspace": 0.04, "hspace": 0.25}
    axes = figure.subplots(max(1, len(titles)), columns + 1, squeeze=False, gridspec_kw=grid)
    for ax in axes.flat:
        ax.set_axis_off()
    for line, (row, title, said) in enumerate(zip(frames, titles, lines, strict=True)):
        for column, image in enumerate(row):
            axes[line, column].imshow(image)
        short = textwrap.shorten(title, 44 * columns, placeholder=" …")
        axes[line, 0].set_title(short, loc="left", fontsize=8)
        _say(axes[line, columns], said)
    return figure


def _say(ax: Axes, said: Sequence[Line]) -> None:
    """Who says what, a line each; labels one after the other in their colours."""
    step = 1 / max(len(said), 1)
    for number, (who, labels) in enumerate(said):
        y = 1 - number * step
        ax.text(0, y, textwrap.shorten(who, 34, placeholder=" …"), fontsize=7, va="top")
        at: tuple[float, float] = (0.42, y)
        coords: Any = "data"
        for label, right in list(labels)[:9] or [("nothing", False)]:
            text = ax.annotate(
                label if right else f"x {label}",
                at,
                xycoords=coords,
                xytext=(0 if coords == "data" else 6, 0),
                textcoords="offset points",
                fontsize=7,
                va="top",
                color=RIGHT if right else WRONG,
            )
            at, coords = (1, 1), text
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
