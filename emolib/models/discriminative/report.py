"""What notebook 06 asks for: all predictions of a run, their scores, and small tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emolib.models.discriminative import measures
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.protocol import ClassPredictions, as_published, out_of_fold

if TYPE_CHECKING:
    from emolib.params.stages import DiscriminativeModel

_HEADS = ("weighted F1", "accuracy", "UAR")
PREDICTIONS, PUBLISHED, BASELINE = "predictions.jsonl", "as_published.jsonl", "baseline.jsonl"


def predict_all(corpus: Corpus, params: DiscriminativeModel) -> dict[str, ClassPredictions]:
    """Prediction file name -> predictions: out of fold, linear baseline, as published."""
    kind = params.classifier.kind
    own, protocol, seed = params.classifier, params.protocol, params.seed
    found = {PREDICTIONS: out_of_fold(corpus, own, protocol, seed=seed, system=kind)}
    if params.baseline and kind != "linear":
        linear = own.model_copy(update={"kind": "linear", "search": 0, "valence_weight": 0.0})
        found[BASELINE] = out_of_fold(corpus, linear, protocol, seed=seed, system="linear")
    if params.as_published:
        found[PUBLISHED] = as_published(corpus, own, protocol, seed=seed, system=kind)
    return found


def scores(
    corpus: Corpus, found: Mapping[str, ClassPredictions], resamples: int, seed: int
) -> dict[str, measures.ClassScore]:
    """System name -> score on the labelled clips."""
    index = corpus.labelled
    return {
        p.system: measures.class_score(
            corpus.y[index],
            p.table[index].argmax(axis=1),
            len(corpus.classes),
            resamples=resamples,
            seed=seed,
        )
        for p in found.values()
    }


def class_table(
    title: str, scores: Mapping[str, measures.ClassScore], seen: Mapping[str, int]
) -> dict[str, Any]:
    """Table: one row a system, whether it had seen the clips, and the commonest class.

    Args:
        title: Heading.
        scores: System name -> score, all on the same clips.
        seen: System name -> clips it was trained on with their label.
    """
    rows: list[list[Any]] = []
    for system, score in scores.items():
        row: list[Any] = [system, score.n, seen[system]]
        for metric in measures.METRICS:
            low, high = score.ci95[metric]
            row += [score.values[metric], f"{low:.4f}-{high:.4f}"]
        rows.append(row)
    first = next(iter(scores.values()))
    constant: list[Any] = ["commonest class, no model", first.n, 0]
    for metric in measures.METRICS:
        constant += [first.majority[metric], None]
    heads = [head for name in _HEADS for head in (name, f"{name} 95 %")]
    notes = [
        f"{first.resamples} bootstrap resamples over clips, percentile interval. "
        "UAR: mean recall of the classes."
    ]
    if any(seen.values()):
        notes.append("Rows with clips seen in training show a leak, not what a model can do.")
    columns = ["system", "n", "seen in training", *heads]
    return {"title": title, "columns": columns, "rows": [*rows, constant], "notes": notes}


def feature_overview(corpus: Corpus) -> dict[str, Any]:
    """Table: extractors, widths, clips without that modality; and clips a class."""
    rows: list[list[Any]] = [
        [table.name, table.modality, table.width, int(table.missing.sum()), _detection(table.faces)]
        for table in corpus.tables
    ]
    counts = np.bincount(corpus.y[corpus.labelled], minlength=len(corpus.classes))
    classes = ", ".join(f"{name} {n}" for name, n in zip(corpus.classes, counts, strict=True))
    labelled, more = len(corpus.labelled), len(corpus.unlabelled)
    return {
        "title": "Features",
        "columns": ["features", "modality", "width", "clips missing", "frames with a face"],
        "rows": rows,
        "notes": [f"{labelled} labelled clips: {classes}; {more} without a class."],
    }


def _detection(faces: Mapping[str, int]) -> float | None:
    """Share of frames in which a face was found; None for features without faces."""
    return faces["found"] / faces["frames"] if faces.get("frames") else None


def repeats_table(found: Mapping[str, ClassPredictions]) -> dict[str, Any]:
    """Mean and deviation of each metric over repeats (other folds, other first weights)."""
    rows: list[list[Any]] = []
    for predictions in found.values():
        row: list[Any] = [predictions.system, len(predictions.runs)]
        for metric in measures.METRICS:
            values = [run[metric] for run in predictions.runs]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row += [float(np.mean(values)), deviation]
        rows.append(row)
    heads = [h for m in _HEADS for h in (m, f"{m} sd")]
    return {"title": "Over repeats", "columns": ["system", "repeats", *heads], "rows": rows}


def paired_table(
    corpus: Corpus, found: Mapping[str, ClassPredictions], seed: int
) -> dict[str, Any]:
    """The first system against every other that has not seen the clips."""
    index = corpus.labelled
    gold, k = corpus.y[index], len(corpus.classes)
    first, *others = [p for p in found.values() if p.out_of_fold]
    rows: list[list[Any]] = []
    for other in others:
        a, b = (p.table[index].argmax(axis=1) for p in (first, other))
        p_values = measures.paired_p(gold, a, b, k, seed=seed)
        for metric in measures.METRICS:
            gap = _metric(gold, a, k, metric) - _metric(gold, b, k, metric)
            name = f"{first.system} - {other.system}"
            rows.append([name, len(gold), metric, gap, p_values[metric]])
    columns = ["comparison", "n", "metric", "difference", "p (permutation)"]
    return {"title": "Paired differences, out of fold", "columns": columns, "rows": rows}


def _metric(gold: np.ndarray, predicted: np.ndarray, classes: int, metric: str) -> float:
    means = measures.cells(gold, predicted, classes).mean(axis=0)
    return float(measures.cell_statistic(classes)(means)[measures.METRICS.index(metric)])


def valence_tables(corpus: Corpus, found: Mapping[str, ClassPredictions]) -> list[dict[str, Any]]:
    """Table: error and correlation of the predicted valences; none without valence output.

    CCC: concordance (1 = equal, 0 = unrelated); the mean of all clips' valences stands beside.
    """
    if corpus.valence is None:
        return []
    rows: list[list[Any]] = []
    for p in found.values():
        if p.valence is not None:
            known = corpus.labelled[~np.isnan(corpus.valence[corpus.labelled])]
            gold, said = corpus.valence[known], p.valence[known]
            rows.append([p.system, len(known), p.leaked, *measures.valence_scores(gold, said)])
    if not rows:
        return []
    same = np.full(len(gold), gold.mean())
    rows.append(["their mean, no model", len(gold), 0, *measures.valence_scores(gold, same)])
    columns = ["system", "n", "seen in training", "RMSE", "Pearson r", "CCC"]
    return [{"title": "Valence", "columns": columns, "rows": rows}]


def reliabilities(
    corpus: Corpus, found: Mapping[str, ClassPredictions]
) -> dict[str, measures.Reliability]:
    """System name -> calibration on the labelled clips."""
    index = corpus.labelled
    return {p.system: measures.reliability(p.table[index], corpus.y[index]) for p in found.values()}


def calibration_json(curves: Mapping[str, measures.Reliability]) -> dict[str, dict[str, float]]:
    """ECE and likelihood of each system, four decimals."""
    return {
        name: {"ece": round(curve.ece, 4), "nll": round(curve.nll, 4)}
        for name, curve in curves.items()
    }
