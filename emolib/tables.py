"""Score tables: ours with intervals, the best constant list, and the published numbers apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emolib.baselines import released
from emolib.baselines.released import Released
from emolib.published import Published, notes_on, published
from emolib.report import Cell, format_cell, table
from emolib.scoring import Comparison, Score, against_constants
from emolib.scoring.uncertainty import holm

if TYPE_CHECKING:
    from emolib.ablation import PartResult
    from emolib.predict import Prediction

__all__ = [
    "COLUMNS",
    "beside_published",
    "comparison_table",
    "constant_table",
    "frame",
    "labels_table",
    "parts_table",
    "published",
    "published_table",
    "ranking_table",
    "released_tables",
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


def ranking_table(title: str, scores: Mapping[str, Score]) -> dict[str, Any]:
    """Many systems in few columns, best F1 first, over the constant-prediction baselines.

    Args:
        title: Heading.
        scores: System name -> score, all on the same clips under one grouping.
    """
    rows: list[list[Cell]] = []
    for system, score in sorted(scores.items(), key=lambda item: (-item[1].f1, item[0])):
        low, high = score.ci95["f1"]
        numbers: list[Cell] = [score.accuracy, score.recall, score.avg, score.f1]
        interval = f"{low:.4f}-{high:.4f}"
        rows.append([system, *numbers, interval, round(score.labels_per_clip, 2)])
    columns = ["system", "accuracy", "recall", "Avg", "F1", "F1 95 %", "labels/clip"]
    if not scores:
        return table(title, columns, rows)
    first = next(iter(scores.values()))
    best = first.constant_list
    for name, found in (("best F1", best["best_f1"]), ("best Avg", best)):
        numbers = [found[metric] for metric in ("accuracy", "recall", "avg", "f1")]
        size = len(found["labels"])
        rows.append([f"constant-prediction baseline, {name}", *numbers, None, float(size)])
    made = table(title, columns, rows)
    made["notes"] = [
        f"n = {first.n} clips; synonyms: {first.grouping['name']} {first.grouping['version']}; "
        f"{first.resamples} bootstrap resamples over clips, percentile interval.",
        "The constant-prediction baselines are chosen knowing the gold labels; best F1: "
        f"{', '.join(best['best_f1']['labels'])}.",
    ]
    return made


def released_tables(
    others: Released,
    graded: Mapping[str, Mapping[str, Score]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Everything about published outputs: rankings, both ways of reading, what a subtitle is worth.

    Args:
        others: The outputs.
        graded: Grouping -> name in tables -> score, of both readings.
        resamples: Bootstrap resamples and permutations of the paired tests.
        seed: Their seed.

    Returns:
        Tables as stages record them; none where there are no outputs.
    """
    options = {"resamples": resamples, "seed": seed}
    made: list[dict[str, Any]] = []
    beside: dict[str, dict[str, dict[str, Score]]] = {}
    for grouping, scores in graded.items():
        readings = released.readings(others, scores)
        reader, rules = readings.get(released.BY_READER, {}), readings.get("", {})
        beside[grouping] = released.by_model(others, reader)
        for how, found in readings.items():
            titled = {others.systems[key].title: score for key, score in found.items()}
            heading = f"Published outputs{how or ', labels without a model'}: {grouping}"
            made.append(ranking_table(heading, titled))
        for what, (each, means) in (
            (
                "Labels without a model minus published labels",
                released.reading_effects(others, rules, reader, **options),
            ),
            (
                "What a subtitle is worth, published labels",
                released.subtitle_effects(others, reader, **options),
            ),
        ):
            if each:
                made.append(comparison_table(f"{what}: {grouping}", each, ["f1"]))
                made.append(comparison_table(f"{what}, means: {grouping}", means))
    if any(beside.values()):
        variants = [variant for variant, _ in released.VARIANTS.values()]
        title = "Published outputs beside printed results"
        made.append(beside_published(title, beside, variants))
    return made


def beside_published(
    title: str, scores: Mapping[str, Mapping[str, Mapping[str, Score]]], variants: Sequence[str]
) -> dict[str, Any]:
    """One row per model: F1 here by grouping and variant, and what is printed of it elsewhere.

    Args:
        title: Heading.
        scores: Grouping -> model -> variant -> score. Of a model with other variants, such as
            epochs, lowest and highest are given.
        variants: Those a cell gives, in this order.
    """
    models = list(dict.fromkeys(model for found in scores.values() for model in found))
    printed = {(one.system, one.set): one.f1 for one in published(None)}
    rows: list[list[Cell]] = []
    for model in models:
        here = [_by_variant(found.get(model, {}), variants) for found in scores.values()]
        row: list[Cell] = [model, *here]
        name = "AffectGPT (2025)" if model == "AffectGPT-2025" else model
        rows.append([*row, *(printed.get((name, where)) for where in ("MER2024-OV", "OV-MERD+"))])
    heads = [f"F1 here, {grouping}" for grouping in scores]
    heads += ["printed, MER2024-OV", "printed, OV-MERD+"]
    made = table(title, ["model", *heads], rows)
    made["notes"] = [
        f"F1 here: {' / '.join(variant.replace('_', ' ') for variant in variants)}.",
        "No two columns are comparable. Printed are F1 under GPT-3.5's groups on the same 332 "
        "clips, and F1 under the wheels, level 1, on OV-MERD+, whose 532 clips contain them "
        "(arXiv 2501.16566, Tables 10 and 2). Which variant a printed number is of is not "
        "stated; AffectGPT's is of the best of its seven epochs on that set.",
    ]
    return made


def _by_variant(scores: Mapping[str, Score], variants: Sequence[str]) -> str | None:
    if not scores or not scores.keys() & set(variants):
        values = sorted(score.f1 for score in scores.values())
        return f"{values[0]:.4f} to {values[-1]:.4f} ({len(values)})" if values else None
    return " / ".join(f"{scores[v].f1:.4f}" if v in scores else "-" for v in variants)


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


def comparison_table(
    title: str, comparisons: Mapping[str, Comparison], metrics: Sequence[str] = ("avg", "f1")
) -> dict[str, Any]:
    """Paired differences: one row a comparison and metric, with interval and p value.

    Of three comparisons or more the p values are also given corrected (Holm), by metric.
    """
    corrected = {
        metric: holm({name: found.p_permutation[metric] for name, found in comparisons.items()})
        for metric in metrics
    }
    several = len(comparisons) > 2
    rows: list[list[Cell]] = []
    for name, found in comparisons.items():
        for metric in metrics:
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
