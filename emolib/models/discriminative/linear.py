"""Regularised logistic regression: the baseline every network has to beat."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import sparse

from emolib.features.table import FeatureTable
from emolib.models.discriminative import measures
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.fitting import Scaler
from emolib.params.discriminative import ClassifierParams

_TOLERANCE = 1e-3  # of the gradient; scores do not change below


class FittedLinear:
    """Logistic regression over blocks of features, each block of about the same length."""

    def __init__(self, corpus: Corpus, train: np.ndarray, params: ClassifierParams) -> None:
        self._blocks = [_Block(table, train, params.standardise) for table in corpus.tables]
        self._model: Any = None
        self._columns = np.zeros(0, dtype=np.int64)
        self._classes = len(corpus.classes)
        self.temperature = 1.0
        self.info: dict[str, Any] = {}

    def inputs(self, corpus: Corpus, index: np.ndarray) -> Any:
        """Float [clips, all features], sparse when one of the tables is."""
        parts = [
            block.apply(table, index)
            for block, table in zip(self._blocks, corpus.tables, strict=True)
        ]
        if any(sparse.issparse(part) for part in parts):
            return sparse.hstack(parts, format="csr")
        return np.hstack(parts)

    def train(self, x: Any, y: np.ndarray, strength: float, balanced: bool) -> FittedLinear:
        """Fit the weights; the iteration limit is far beyond what these sizes need."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            # From one strength to the next (rising) the weights before are a good start.
            self._model = self._model or LogisticRegression(
                warm_start=True, class_weight="balanced" if balanced else None, max_iter=300
            )
            self._model.set_params(C=strength, tol=_TOLERANCE).fit(x, y)
        self._columns = self._model.classes_.astype(np.int64)
        return self

    def decide(self, x: Any) -> np.ndarray:
        """Logits float64 [clips, classes]; a class never seen in training is far below."""
        raw = np.asarray(self._model.decision_function(x), dtype=np.float64)
        if raw.ndim == 1:
            raw = np.column_stack([-raw / 2, raw / 2])
        table = np.full((len(raw), self._classes), raw.min() - 20.0)
        table[:, self._columns] = raw
        return table

    def logits(self, corpus: Corpus, index: np.ndarray) -> np.ndarray:
        """float64 [clips, classes]."""
        return self.decide(self.inputs(corpus, index))

    def valence(self, corpus: Corpus, index: np.ndarray) -> None:
        """None: no valence output."""
        return None


class _Block:
    """One table's preparation: tf-idf of unit length for counts, else standardised / root width."""

    def __init__(self, table: FeatureTable, train: np.ndarray, standardise: bool) -> None:
        if sparse.issparse(table.values):
            counts = table.values[train]
            seen = np.bincount(counts.indices, minlength=table.width)
            # What one training clip alone says cannot be known to mean anything.
            self._kept = np.flatnonzero(seen >= 2)
            self._idf = np.log((1 + len(train)) / (1 + seen[self._kept])) + 1
        else:
            self._scaler = Scaler.fit(table, train, standardise)

    def apply(self, table: FeatureTable, index: np.ndarray) -> Any:
        if sparse.issparse(table.values):
            weighed = table.values[index][:, self._kept].multiply(self._idf).tocsr()
            length = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
            return sparse.diags(1 / np.maximum(length, 1e-9)) @ weighed
        values = self._scaler.apply(table, index)
        if table.lengths is not None:
            values = values.sum(axis=1) / np.maximum(table.lengths[index], 1)[:, None]
        return values / np.sqrt(table.width)


def fit_linear(
    corpus: Corpus, train: np.ndarray, stop: np.ndarray, params: ClassifierParams
) -> FittedLinear:
    """Choose the strength by the likelihood on ``stop``, calibrate there, fit again on both.

    Deterministic. Cost: strengths x clips x features x iterations.
    """
    inner = FittedLinear(corpus, train, params)
    x, held = inner.inputs(corpus, train), inner.inputs(corpus, stop)
    y, gold = corpus.y[train], corpus.y[stop]
    tried: list[tuple[float, float, float]] = []
    for strength in sorted(params.strengths):
        logits = inner.train(x, y, strength, params.class_weights).decide(held)
        temperature = measures.fit_temperature(logits, gold)
        score = measures.weighted_f1(gold, logits.argmax(axis=1), len(corpus.classes))
        tried.append((score, strength, temperature))
    # Of nearly equal ones the most regularised: small inner splits are noisy.
    best = max(score for score, _, _ in tried)
    near = best - 0.5 * np.sqrt(max(best * (1 - best), 0.0) / max(len(stop), 1))
    score, strength, temperature = next(t for t in tried if t[0] >= near)
    both = np.concatenate([train, stop])
    final = FittedLinear(corpus, both, params)
    final.train(final.inputs(corpus, both), corpus.y[both], strength, params.class_weights)
    final.temperature = temperature
    final.info = {
        "strength": strength,
        "inner_weighted_f1": round(score, 4),
        "temperature": round(temperature, 4),
    }
    return final
