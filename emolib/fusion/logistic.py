"""Regularised logistic regression with calibration, in numpy: few weights, no surprises."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * z))


def log_loss(z: np.ndarray, y: np.ndarray) -> float:
    """Mean negative log likelihood of labels ``y`` (0 or 1) under logits ``z``."""
    return float(np.mean(np.logaddexp(0, z) - y * z))


def newton(x: np.ndarray, y: np.ndarray, ridge: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Minimise the summed log loss of ``x @ w`` plus ``ridge * (w - centre)**2 / 2``.

    Args:
        x: float64 [n, d].
        y: float64 [n], 0 or 1.
        ridge: float64 [d], > 0, so that the minimum exists and is unique.
        centre: float64 [d].

    Returns:
        float64 [d]. Damped Newton steps, O(n d^2) each; some ten of them.
    """

    def loss(w: np.ndarray) -> float:
        return log_loss(x @ w, y) * len(y) + float(ridge @ (w - centre) ** 2) / 2

    w = centre.astype(float)
    for _ in range(100):
        p = sigmoid(x @ w)
        gradient = x.T @ (p - y) + ridge * (w - centre)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(w - size * step) > loss(w) + 1e-12 and size > 1e-6:
            size /= 2
        w = w - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return w


@dataclass(frozen=True, slots=True)
class Logistic:
    """A fitted model on standardised features.

    Attributes:
        features: Their names.
        mean: Their training means.
        scale: Their training standard deviations (1 where constant).
        weights: One a feature.
        intercept: Log odds at the means.
        slope: Calibration: the logit is ``shift + slope * raw``.
        shift: See ``slope``.
        penalty: Ridge penalty that was chosen.
        inner_loss: Out-of-fold log loss that chose it.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    slope: float
    shift: float
    penalty: float
    inner_loss: float

    def probability(self, x: np.ndarray) -> np.ndarray:
        """Calibrated probabilities.

        Args:
            x: float64 [n, features].

        Returns:
            float64 [n] in (0, 1).
        """
        base = self.shift + self.slope * self.intercept
        return sigmoid(base + self.contributions(x).sum(axis=1))

    def contributions(self, x: np.ndarray) -> np.ndarray:
        """What each feature adds to the log odds of a candidate with average features.

        Args:
            x: float64 [n, features].

        Returns:
            float64 [n, features].
        """
        z = (x - np.array(self.mean)) / np.array(self.scale)
        return self.slope * np.array(self.weights) * z

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Logistic:
        """Undo :meth:`to_json`."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**plain)


def fit(
    features: tuple[str, ...], x: np.ndarray, y: np.ndarray, fold: np.ndarray
) -> tuple[Logistic, np.ndarray]:
    """Fit, with penalty and calibration taken from out-of-fold logits.

    Args:
        features: Names of the columns.
        x: float64 [n, d].
        y: float64 [n], 0 or 1.
        fold: int64 [n], inner fold of each row.

    Returns:
        The model, and float64 [n], the calibrated out-of-fold probability of each row.
    """
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale < 1e-9, 1.0, scale)
    rows = np.column_stack([(x - mean) / scale, np.ones(len(x))])
    best: tuple[float, float, np.ndarray] | None = None
    for penalty in PENALTIES:
        logits = np.zeros(len(y))
        for k in np.unique(fold):
            logits[fold == k] = rows[fold == k] @ _ridge(rows[fold != k], y[fold != k], penalty)
        loss = log_loss(logits, y)
        if best is None or loss < best[0] - 1e-9:
            best = loss, penalty, logits
    assert best is not None
    loss, penalty, logits = best
    # Held to slope 1 and shift 0 as if by a handful of clips.
    calibration = newton(
        np.column_stack([np.ones(len(y)), logits]), y, np.array([1.0, 5.0]), np.array([0.0, 1.0])
    )
    w = _ridge(rows, y, penalty)
    model = Logistic(
        features,
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(w[:-1].tolist()),
        float(w[-1]),
        slope=float(calibration[1]),
        shift=float(calibration[0]),
        penalty=penalty,
        inner_loss=loss,
    )
    return model, sigmoid(model.shift + model.slope * logits)


def _ridge(rows: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    ridge = np.full(rows.shape[1], penalty)
    ridge[-1] = 1e-3  # the intercept is next to free
    return newton(rows, y, ridge, np.zeros(rows.shape[1]))
