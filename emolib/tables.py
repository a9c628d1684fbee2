"""Score tables: ours with intervals, the best constant list, and the published numbers apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emolib.published import Published, notes_on, published
from emolib.report import Cell, format_cell, table
from emolib.scoring import Comparison, Score, against_constants
from emolib.scoring.uncertainty import holm

if TYPE_CHECKING:
    from emolib.ablation import PartResult
    from emolib.predict import Prediction

__all__ = [
    "COLUMNS",
    "comparison_table",
    "constant_table",
    "frame",
    "labels_table",
    "parts_table",
    "published",
    "published_table",
    "score_table",
    "spread_table",
    "trend_table",
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
    if not scores:
        made = table(title, COLUMNS, rows)
        made["notes"] = ["Nothing to score: none of these clips has reference labels."]
        return made
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


_LISTS = {"same_length": "best Avg, no longer", "any_length": "best Avg", "best_f1": "best F1"}


def constant_table(
    title: str, scores: Mapping[str, Score], resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Our systems against what no model is needed for: three rows a system.

    Args:
        title: Heading.
        scores: System name -> score, all on the same clips.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.
    """
    rows: list[list[Cell]] = []
    for system, score in scores.items():
        for which, found in against_constants(score, resamples=resamples, seed=seed).items():
            row: list[Cell] = [system, found.n, _LISTS[which], round(found.b["labels_per_clip"])]
            for metric in ("avg", "f1"):
                low, high = found.ci95[metric]
                row += [found.difference[metric], f"{low:+.4f} to {high:+.4f}"]
                row.append(found.p_permutation[metric])
            rows.append(row)
    heads = [head for m in ("Avg", "F1") for head in (f"{m} -", f"95 %, {m}", f"p, {m}")]
    made = table(title, ["system", "n", "constant list", "its labels", *heads], rows)
    made["notes"] = [
        "System minus list, paired over clips; p by permutation. The lists are chosen with the "
        "gold labels of these very clips, so the tests favour them. No longer: than the system's "
        "lists, mean rounded up. A list of very many labels has a high Avg by recall alone."
    ]
    if not all(score.shared for score in scores.values()):
        made["notes"].append(
            "Groups made clip by clip do not know every label of a list, which favours the system."
        )
    return made


def published_table(title: str, rows: Sequence[Published]) -> dict[str, Any]:
    """Published numbers as a table of their own: other clips or groups are never one column."""
    cells: list[list[Cell]] = [
        [r.system, r.input, r.n, r.accuracy, r.recall, r.avg, r.f1, r.source] for r in rows
    ]
    columns = ["system", "input", "n", "accuracy", "recall", "Avg", "F1", "source"]
    used = [i for i in range(len(columns)) if columns[i] != "F1" or any(r.f1 for r in rows)]
    made = table(title, [columns[i] for i in used], [[row[i] for i in used] for row in cells])
    return made | ({"notes": notes} if (notes := notes_on(rows)) else {})


def frame(made: Mapping[str, Any]) -> Any:
    """A table as a pandas Styler, for notebooks: heading, four decimals, "-" for nothing."""
    import pandas as pd

    data = pd.DataFrame(made["rows"], columns=made["columns"], dtype=object)
    styled: Any = data.style.hide(axis="index").set_caption(made["title"])
    return styled.format(format_cell)


def labels_table(
    title: str, systems: Mapping[str, Sequence[Prediction]], limit: int = 12
) -> dict[str, Any]:
    """Predicted labels clip by clip, a column each for the systems that predicted anything.

    Args:
        title: Heading.
        systems: System name -> predictions of the same clips, in the same order.
        limit: Most clips shown; the note says how many there are.
    """
    shown = {name: found for name, found in systems.items() if found}
    every = next(iter(shown.values()), ())
    rows: list[list[Cell]] = []
    for number, first in enumerate(every[:limit]):
        said = (found[number] for found in shown.values())
        cells = [f"error: {one.error}"[:80] if one.error else ", ".join(one.labels) for one in said]
        rows.append([first.name, *cells])
    made = table(title, ["clip", *shown], rows)
    if len(every) > limit:
        made["notes"] = [
            f"The first {limit} of {len(every)} clips; the run's .jsonl files hold all."
        ]
    return made


def comparison_table(title: str, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Paired differences: one row a comparison and metric, with interval and p value.

    Of three comparisons or more the p values are also given corrected (Holm), by metric.
    """
    corrected = {
        metric: holm({name: found.p_permutation[metric] for name, found in comparisons.items()})
        for metric in ("avg", "f1")
    }
    several = len(comparisons) > 2
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
                    *([corrected[metric][name]] if several else []),
                ]
            )
    columns = ["comparison", "n", "metric", "difference", "95 % (paired)", "p (permutation)"]
    return table(title, [*columns, *(["p (Holm)"] if several else [])], rows)


def spread_table(title: str, scores: Mapping[str, Score], counted: str = "seeds") -> dict[str, Any]:
    """How far several trainings of one recipe lie apart: mean, lowest, highest of each metric.

    Args:
        title: Heading.
        scores: One score each, all on the same clips.
        counted: What the scores are of, as a heading over their number.
    """
    rows: list[list[Cell]] = []
    for label, metric in (("accuracy", "accuracy"), ("recall", "recall"), ("Avg", "avg")):
        values = [float(getattr(score, metric)) for score in scores.values()]
        rows.append([label, len(values), sum(values) / len(values), min(values), max(values)])
    return table(title, ["metric", counted, "mean", "lowest", "highest"], rows)


def parts_table(title: str, results: Sequence[PartResult]) -> dict[str, Any]:
    """Arms of the face-crop ablation within parts of the clips, one row a part."""
    arms = list(dict.fromkeys(arm for part in results for arm in part.avg))
    pairs = [
        p for part in results for p in part.differences if p in ("whole - face", "both - whole")
    ]
    pairs = list(dict.fromkeys(pairs))
    rows: list[list[Cell]] = []
    for part in results:
        row: list[Cell] = [part.name, part.n, *(part.avg.get(arm) for arm in arms)]
        for pair in pairs:
            found = part.differences.get(pair)
            row += [None, None, None] if found is None else _difference(found)
        rows.append(row)
    heads = [text for pair in pairs for text in (pair, f"95 %, {pair}", f"p, {pair}")]
    made = table(title, ["clips", "n", *arms, *heads], rows)
    made["notes"] = [
        "Avg; faces as the detector found them, their size in pixels of the video (side of the "
        "square cut out of it, median of the clip). Paired intervals; p by permutation, not "
        "corrected for the number of parts; no test where there are too few clips."
    ]
    return made


def _difference(found: Mapping[str, Any]) -> list[Cell]:
    low, high = found["ci95"]
    return [found["avg"], f"{low:+.4f} to {high:+.4f}", found["p"]]


def trend_table(title: str, trends: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Rank correlation of differences between arms with face size."""
    rows: list[list[Cell]] = [
        [pair, int(one["n"]), one["rho"], one["p"]] for pair, one in trends.items()
    ]
    made = table(title, ["difference", "n", "Spearman's rho", "p (permutation)"], rows)
    made["notes"] = ["Clips with a face. Resolution at work: 'whole - face' falls, rho < 0."]
    return made
