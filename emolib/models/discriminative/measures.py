"""Scores of single-label classification with intervals, paired tests and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from emolib.errors import ScoreError
from emolib.scoring.uncertainty import Statistic, bootstrap, permutation_p

METRICS = ("weighted_f1", "accuracy", "uar")


@dataclass(frozen=True, slots=True, eq=False)
class ClassScore:
    """How well classes were predicted. Fractions in [0, 1].

    Attributes:
        n: Clips.
        values: "weighted_f1" (mean of the classes' F1 weighted by their gold frequency; the
            MER challenges' WAF), "accuracy", "uar" (mean recall of the classes).
        ci95: Percentile bootstrap interval over clips of each.
        confusion: int64 [classes, classes], gold in rows.
        f1: float64 [classes], 0 where a class was neither given nor predicted.
        majority: The same metrics of always naming the commonest class.
        resamples: Bootstrap resamples.
    """

    n: int
    values: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    confusion: np.ndarray
    f1: np.ndarray
    majority: dict[str, float]
    resamples: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for a result file, four decimals."""
        return {
            "n": self.n,
            **{name: round(value, 4) for name, value in self.values.items()},
            "ci95": {name: [round(x, 4) for x in pair] for name, pair in self.ci95.items()},
            "f1_per_class": [round(float(x), 4) for x in self.f1],
            "confusion": self.confusion.tolist(),
            "majority": {name: round(value, 4) for name, value in self.majority.items()},
            "resamples": self.resamples,
        }


def class_score(
    gold: np.ndarray, predicted: np.ndarray, classes: int, *, resamples: int = 10_000, seed: int = 0
) -> ClassScore:
    """Score predicted classes.

    Args:
        gold: int [clips] in [0, classes).
        predicted: int [clips] in [0, classes).
        classes: Number of classes.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Raises:
        ScoreError: no clips, or the two differ in length.
    """
    columns = cells(gold, predicted, classes)
    statistic = cell_statistic(classes)
    found = bootstrap(columns, statistic, resamples, seed)
    confusion = columns.sum(axis=0).astype(np.int64).reshape(classes, classes)
    common = np.full(len(gold), np.bincount(gold, minlength=classes).argmax())
    constant = statistic(cells(gold, common, classes).mean(axis=0))
    return ClassScore(
        n=len(gold),
        values=dict(zip(METRICS, map(float, found.estimate), strict=True)),
        ci95={
            name: (float(low), float(high))
            for name, (low, high) in zip(METRICS, found.percentile, strict=True)
        },
        confusion=confusion,
        f1=_f1(confusion / max(1, len(gold))),
        majority=dict(zip(METRICS, map(float, constant), strict=True)),
        resamples=resamples,
    )


def paired_p(
    gold: np.ndarray, a: np.ndarray, b: np.ndarray, classes: int, *, seed: int = 0
) -> dict[str, float]:
    """Two-sided paired permutation test of each metric between two predictions."""
    one, other = cells(gold, a, classes), cells(gold, b, classes)
    values = permutation_p(one, other, cell_statistic(classes), 10_000, seed)
    return dict(zip(METRICS, map(float, values), strict=True))


def chance_p(
    gold: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    *,
    permutations: int = 9_999,
    seed: int = 0,
) -> dict[str, float]:
    """One-sided permutation test against chance: the predictions are dealt to random clips.

    Returns:
        (1 + at least as good) / (1 + permutations) for each metric.
    """
    statistic = cell_statistic(classes)
    observed = statistic(cells(gold, predicted, classes).mean(axis=0))
    rng = np.random.default_rng(seed)
    hits = np.zeros(len(METRICS))
    for _ in range(permutations):
        code = gold * classes + rng.permutation(predicted)
        table = np.bincount(code, minlength=classes * classes) / len(gold)
        hits += statistic(table) >= observed - 1e-12
    return dict(zip(METRICS, map(float, (1 + hits) / (1 + permutations)), strict=True))


def cells(gold: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """One-hot confusion cell of each clip, float64 [clips, classes * classes]."""
    if not len(gold) or len(gold) != len(predicted):
        raise ScoreError(f"{len(gold)} gold and {len(predicted)} predicted classes")
    table = np.zeros((len(gold), classes * classes))
    table[np.arange(len(gold)), gold * classes + predicted] = 1.0
    return table


def cell_statistic(classes: int) -> Statistic:
    """:data:`METRICS` as a function of the means of confusion cells."""

    def statistic(means: np.ndarray) -> np.ndarray:
        table = means.reshape(*means.shape[:-1], classes, classes)
        gold = table.sum(axis=-1)
        hits = np.diagonal(table, axis1=-2, axis2=-1)
        recall = np.where(gold > 0, hits / np.maximum(gold, 1e-12), 0.0)
        present = np.maximum((gold > 0).sum(axis=-1), 1)
        return np.stack(
            [(gold * _f1(table)).sum(-1), hits.sum(-1), recall.sum(-1) / present], axis=-1
        )

    return statistic


def _f1(table: np.ndarray) -> np.ndarray:
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    total = table.sum(axis=-1) + table.sum(axis=-2)
    return np.where(total > 0, 2 * hits / np.maximum(total, 1e-12), 0.0)


def weighted_f1(gold: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Weighted F1 alone."""
    return float(cell_statistic(classes)(cells(gold, predicted, classes).mean(axis=0))[0])


def nll(logits: np.ndarray, gold: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, nats."""
    logs = log_softmax(logits / temperature, axis=1)
    return float(-logs[np.arange(len(gold)), gold].mean())


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """Temperature in [0.05, 20] that makes ``softmax(logits / T)`` most likely.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017).
    """
    if not len(gold):
        return 1.0
    found = minimize_scalar(
        lambda log_t: nll(logits, gold, float(np.exp(log_t))),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    best = float(np.exp(found.x))
    return best if nll(logits, gold, best) <= nll(logits, gold) else 1.0


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Calibrated probabilities, float64 [clips, classes]."""
    return np.asarray(softmax(logits / temperature, axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Stated against true share right, in equal bins of the stated probability.

    Attributes:
        stated: float64 [bins], mean probability of the predicted class.
        right: float64 [bins], share of clips whose predicted class is right.
        count: int64 [bins]; bins without clips are left out.
        ece: Expected calibration error: mean gap weighted by the counts.
        nll: Mean negative log-likelihood, nats.
    """

    stated: np.ndarray
    right: np.ndarray
    count: np.ndarray
    ece: float
    nll: float


def reliability(table: np.ndarray, gold: np.ndarray, bins: int = 10) -> Reliability:
    """Calibration of probabilities float64 [clips, classes]."""
    stated = table.max(axis=1)
    right = table.argmax(axis=1) == gold
    where = np.minimum((stated * bins).astype(int), bins - 1)
    count = np.bincount(where, minlength=bins)
    kept = count > 0
    mean = np.bincount(where, stated, bins)[kept] / count[kept]
    share = np.bincount(where, right, bins)[kept] / count[kept]
    ece = float((np.abs(mean - share) * count[kept]).sum() / len(gold))
    likely = np.maximum(table[np.arange(len(gold)), gold], 1e-12)
    return Reliability(mean, share, count[kept], ece, float(-np.log(likely).mean()))


def valence_scores(gold: np.ndarray, said: np.ndarray) -> tuple[float, float | None, float]:
    """Root mean squared error, Pearson correlation (None when one side is constant), CCC.

    Args:
        gold: float64 [clips].
        said: float64 [clips].
    """
    moved = said - said.mean()
    around = gold - gold.mean()
    both = float((moved * around).mean())
    spread = float(np.sqrt((moved**2).mean() * (around**2).mean()))
    whole = float((moved**2).mean() + (around**2).mean() + (said.mean() - gold.mean()) ** 2)
    rmse = float(np.sqrt(((said - gold) ** 2).mean()))
    return rmse, both / spread if spread > 1e-12 else None, 2 * both / whole if whole else 1.0
