"""Figures of scores. Every function draws on the Axes it is given and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emolib.plots.data import nothing
from emolib.scoring import Score
from emolib.scoring.tables import label_errors


def accuracy_recall(scores: Mapping[str, Score], ax: Axes) -> Axes:
    """Systems in the plane of set accuracy and recall, with their 95 % intervals.

    Grey lines join points of equal Avg (straight) and equal F1 (curved): a long list walks
    up along the first and down along the second. The cross is the best constant list no
    longer than the first system's lists, on its clips.

    Args:
        scores: System name -> score; scores without intervals are drawn as points.
        ax: Where to draw.
    """
    if not scores:
        return nothing(ax, "no scores")
    _iso_lines(ax)
    for number, (name, score) in enumerate(scores.items()):
        color = f"C{number % 10}"
        if score.ci95:
            error = [
                [[value - low], [high - value]]
                for value, (low, high) in (
                    (score.accuracy, score.ci95["accuracy"]),
                    (score.recall, score.ci95["recall"]),
                )
            ]
            ax.errorbar(
                *(score.accuracy, score.recall),
                xerr=np.maximum(error[0], 0),
                yerr=np.maximum(error[1], 0),
                color=color,
                capsize=2,
                linewidth=1,
            )
        label = f"{name} (n={score.n}, {score.labels_per_clip:.1f} labels)"
        marker = "osD^"[number // 10 % 4]
        ax.plot(score.accuracy, score.recall, marker, color=color, label=label)
    best = next(iter(scores.values())).constant_list["same_length"]
    label = f"constant: {', '.join(best['labels'])}"
    ax.plot(best["accuracy"], best["recall"], "kx", label=label)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="accuracy (set precision)", ylabel="recall")
    ax.set_aspect("equal")
    if len(scores) > 5:  # would hide the points
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    else:
        ax.legend(fontsize=7, loc="lower left")
    return ax


def _iso_lines(ax: Axes) -> None:
    x = np.linspace(0.001, 1, 400)
    for level in np.arange(0.1, 1.0, 0.1):
        ax.plot(x, 2 * level - x, color="0.88", linewidth=0.8, zorder=0)
        with_f1 = x > level / 2
        y = level * x[with_f1] / (2 * x[with_f1] - level)
        ax.plot(x[with_f1], y, color="0.8", linewidth=0.8, linestyle=":", zorder=0)
        if level > 0.5:
            at = 2 * level - 1
            ax.annotate(f"Avg {level:.1f}", (1, at), fontsize=6, color="0.5", ha="right")
        ax.annotate(f"F1 {level:.1f}", (level, level), fontsize=6, color="0.5", ha="center")


def labels_per_clip(scores: Mapping[str, Score], ax: Axes) -> Axes:
    """How many clips have 0, 1, 2, ... labels: gold (bars) and each system (lines).

    Args:
        scores: System name -> score; gold is that of the first.
        ax: Where to draw.
    """
    if not scores:
        return nothing(ax, "no scores")
    first = next(iter(scores.values()))
    gold = np.bincount(np.diff(first.data.gold.offsets))
    ax.bar(np.arange(len(gold)), gold / first.n, color="0.85", label="gold")
    for number, (name, score) in enumerate(scores.items()):
        counts = np.bincount(np.diff(score.data.pred.offsets)) / score.n
        ax.plot(np.arange(len(counts)), counts, "o-", color=f"C{number % 10}", label=name)
    ax.set(xlabel="labels in a clip", ylabel="share of clips")
    ax.legend(fontsize=8)
    return ax


def missed_and_invented(score: Score, ax: Axes, top: int = 12) -> Axes:
    """The labels most often missed (left) and most often invented (right), in clips.

    Args:
        score: One system.
        ax: Where to draw.
        top: Labels shown on each side.
    """
    table = label_errors(score)
    lost = table["missed"].sort_values(ascending=False, kind="stable").head(top)
    new = table["invented"].sort_values(ascending=False, kind="stable").head(top)
    lost, new = lost[lost > 0], new[new > 0]
    for counts, sign, color in ((lost, -1, "C0"), (new, 1, "C1")):
        rows = np.arange(len(counts))
        ax.barh(rows, sign * counts.to_numpy(), color=color)
        for row, (label, count) in enumerate(counts.items()):
            ax.annotate(
                f"{label} {count}",
                (sign * count, row),
                xytext=(3 * sign, 0),
                textcoords="offset points",
                ha="left" if sign > 0 else "right",
                va="center",
                fontsize=7,
            )
    widest = float(max([*lost, *new, 1]))
    ax.set(xlim=(-1.7 * widest, 1.7 * widest), yticks=[], xlabel="clips")
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.invert_yaxis()
    ax.set_title("missed gold labels  |  invented labels", fontsize=9)
    return ax


def f1_by_variant(
    reader: Mapping[str, Mapping[str, Score]], rules: Mapping[str, Mapping[str, Score]], ax: Axes
) -> Axes:
    """F1 of published outputs, one row per model, with 95 % intervals.

    The dotted line is the constant-prediction baseline with the best F1.

    Args:
        reader: Model -> variant -> score of the labels that came with the outputs (filled).
        rules: The same of the labels read without a model (open); same clips and grouping.
        ax: Where to draw.
    """
    every = [score for found in (reader, rules) for own in found.values() for score in own.values()]
    if not every:
        return nothing(ax, "no published outputs")
    models = list(dict.fromkeys([*reader, *rules]))
    colors: dict[str, str] = {}
    for row, model in enumerate(models):
        variants = list(dict.fromkeys([*reader.get(model, {}), *rules.get(model, {})]))
        epochs = [variant for variant in variants if variant.startswith("epoch_")]
        for number, variant in enumerate(variants):
            shade = str(round(0.7 - 0.6 * number / len(variants), 2))
            colors.setdefault(variant, shade if variant in epochs else f"C{len(colors) % 10}")
            middle = row + 0.8 * ((number + 0.5) / len(variants) - 0.5)
            for scores, shift, filled in ((reader, -0.03, True), (rules, 0.03, False)):
                if score := scores.get(model, {}).get(variant):
                    face = colors[variant] if filled else "white"
                    color, y = colors[variant], middle + shift
                    ax.plot(score.ci95["f1"], [y, y], color=color, linewidth=1)
                    ax.plot(score.f1, y, "o", color=color, markerfacecolor=face, markersize=4.5)
    best = every[0].constant_list["best_f1"]
    ax.axvline(best["f1"], color="0.3", linestyle=":", linewidth=1)
    for variant, color in colors.items():
        ax.plot([], [], "o", color=color, label=variant.replace("_", " "))
    ax.plot([], [], "o", color="0.3", label="filled: labels by Qwen2.5-7B")
    ax.plot([], [], "o", color="0.3", markerfacecolor="white", label="open: labels without a model")
    ax.plot([], [], ":", color="0.3", label=f"constant: {', '.join(best['labels'])}")
    ax.set_yticks(np.arange(len(models)), models)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlabel(f"F1, {every[0].grouping['name']}, n = {every[0].n}")
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def systems_and_outputs(
    own: Mapping[str, Score],
    outputs: Sequence[tuple[Mapping[str, Mapping[str, Score]], Mapping[str, Mapping[str, Score]]]],
) -> Figure:
    """Own systems in the plane of accuracy and recall; published outputs of others by model.

    Args:
        own: System name -> score; without any, these two panels are left out.
        outputs: Arguments of :func:`f1_by_variant`, a pair per grouping; pairs without scores are
            left out.
    """
    shown = [pair for pair in outputs if any(pair)]
    panels = 2 * bool(own) + len(shown)
    figure = Figure(figsize=(7.5 * max(1, panels), 5.5), layout="constrained")
    axes = figure.subplots(1, max(1, panels), squeeze=False)[0].tolist()
    if own:
        accuracy_recall(own, axes.pop(0))
        labels_per_clip(own, axes.pop(0))
    for (reader, rules), ax in zip(shown, axes[: len(shown)], strict=True):
        f1_by_variant(reader, rules, ax)
    if not panels:
        nothing(axes[0], "no scores")
    return figure
