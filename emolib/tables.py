"""Score tables: ours with intervals, the best constant list, and the published numbers apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emolib.published import Published, published
from emolib.report import Cell, format_cell, table
from emolib.scoring import Comparison, Score

__all__ = [
    "COLUMNS",
    "comparison_table",
    "frame",
    "published",
    "published_table",
    "score_table",
    "spread_table",
]

COLUMNS = (
    "system",
    "n",
    "accuracy",
    "recall",
    "Avg",
    "Avg 95 %",
    "F1",
    "labels/clip",
    "coverage",
)


def score_table(title: str, scores: Mapping[str, Score]) -> dict[str, Any]:
    """Our systems, one row each, and the best constant lists on the same clips.

    Args:
        title: Heading.
        scores: System name -> score, all on the same clips.
    """
    rows: list[list[Cell]] = []
    for system, score in scores.items():
        low, high = score.ci95["avg"]
        rows.append(
            [
                system,
                score.n,
                score.accuracy,
                score.recall,
                score.avg,
                f"{low:.4f}-{high:.4f}",
                score.f1,
                round(score.labels_per_clip, 2),
                score.coverage,
            ]
        )
    first = next(iter(scores.values()))
    best, short = first.constant_list, first.constant_list["same_length"]
    for name, found in (
        (f"constant list, no model, {len(short['labels'])} labels", short),
        ("constant list, no model, any length", best),
    ):
        numbers: list[Cell] = [found["accuracy"], found["recall"], found["avg"], None, found["f1"]]
        rows.append([name, first.n, *numbers, float(len(found["labels"])), None])
    made = table(title, COLUMNS, rows)
    made["notes"] = [
        f"Synonyms: {first.grouping['name']} {first.grouping['version']}; "
        f"{first.resamples} bootstrap resamples over clips, percentile interval.",
        f"The constant lists are the best there are, chosen knowing the gold labels: "
        f"{', '.join(short['labels'])}, no longer than {next(iter(scores))}'s; or any length.",
    ]
    return made


def published_table(title: str, rows: Sequence[Published]) -> dict[str, Any]:
    """Published numbers as a table of their own: other clips or groups are never one column."""
    cells: list[list[Cell]] = [
        [r.system, r.input, r.n, r.accuracy, r.recall, r.avg, r.f1, r.source] for r in rows
    ]
    columns = ["system", "input", "n", "accuracy", "recall", "Avg", "F1", "source"]
    used = [i for i in range(len(columns)) if columns[i] != "F1" or any(r.f1 for r in rows)]
    return table(title, [columns[i] for i in used], [[row[i] for i in used] for row in cells])


def frame(made: Mapping[str, Any]) -> Any:
    """A table as a pandas Styler, for notebooks: heading, four decimals, "-" for nothing."""
    import pandas as pd

    data = pd.DataFrame(made["rows"], columns=made["columns"], dtype=object)
    styled: Any = data.style.hide(axis="index").set_caption(made["title"])
    return styled.format(format_cell)


def comparison_table(title: str, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Paired differences: one row a comparison and metric, with interval and p value."""
    rows: list[list[Cell]] = []
    for name, found in comparisons.items():
        for metric in ("avg", "f1"):
            low, high = found.ci95[metric]
            rows.append(
                [
                    name,
                    found.n,
                    {"avg": "Avg", "f1": "F1"}[metric],
                    found.difference[metric],
                    f"{low:+.4f} to {high:+.4f}",
                    found.p_permutation[metric],
                ]
            )
    columns = ["comparison", "n", "metric", "difference", "95 % (paired)", "p (permutation)"]
    return table(title, columns, rows)


def spread_table(title: str, scores: Mapping[str, Score]) -> dict[str, Any]:
    """How far several trainings of one recipe lie apart: mean, lowest, highest of each metric.

    Args:
        title: Heading.
        scores: One score a seed, all on the same clips.
    """
    rows: list[list[Cell]] = []
    for label, metric in (("accuracy", "accuracy"), ("recall", "recall"), ("Avg", "avg")):
        values = [float(getattr(score, metric)) for score in scores.values()]
        rows.append([label, len(values), sum(values) / len(values), min(values), max(values)])
    return table(title, ["metric", "seeds", "mean", "lowest", "highest"], rows)
