"""Ridge regression from all votes on a clip to its gold groups: what similar clips have in gold.

The other features of a candidate look at one group at a time. This one learns from the whole
pattern of votes ("three sources say sad and the text says angry"), with one strongly regularized
linear model for each group, fitted in its dual form: with n training clips, n weights for each
group, whatever the number of sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack

from emolib.fusion.statistics import logit
from emolib.fusion.votes import Votes

PENALTIES = (0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A fitted regression.

    Attributes:
        groups: Names of the groups of the training votes.
        gold_groups: Names of the groups it predicts.
        rows: float64 [training clips, inputs], see :func:`inputs`.
        dual: float64 [training clips, gold groups].
        share: float64 [gold groups], share of training clips whose gold has each.
        penalty: The penalty that was chosen.
    """

    groups: tuple[str, ...]
    gold_groups: tuple[str, ...]
    rows: csr_array
    dual: np.ndarray
    share: np.ndarray
    penalty: float

    def predict(self, votes: Votes) -> np.ndarray:
        """Return log odds of every gold group, and last of a group in no gold.

        Args:
            votes: Votes of the same sources; groups unknown from training are left out.

        Returns:
            float64 [clips, gold groups + 1].
        """
        kernel = _centered(inputs(votes, self.groups), self.rows)
        return _log_odds(kernel @ self.dual + self.share, self.share, self.rows.shape[0])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        cells = self.rows.tocoo()
        return {
            "groups": list(self.groups),
            "gold_groups": list(self.gold_groups),
            "rows": [cells.row.tolist(), cells.col.tolist(), cells.data.tolist()],
            "shape": list(self.rows.shape),
            "dual": self.dual.tolist(),
            "share": self.share.tolist(),
            "penalty": self.penalty,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ridge:
        """Undo :meth:`to_json`."""
        i, j, values = data["rows"]
        return cls(
            tuple(data["groups"]),
            tuple(data["gold_groups"]),
            csr_array((np.array(values, float), (i, j)), shape=tuple(data["shape"])),
            np.array(data["dual"], float).reshape(data["shape"][0], -1),
            np.array(data["share"], float),
            data["penalty"],
        )


def inputs(votes: Votes, groups: tuple[str, ...]) -> csr_array:
    """Return what the regression reads of every clip.

    The root of the mean share of each group, the sources' own shares, and the roots of
    confidences: blocks of about the same length for every number of sources.

    Returns:
        float64 [clips, (1 + sources + systems with confidences) * groups].
    """
    votes = votes.on(groups)
    n, width = max(votes.sources, 1), len(groups)
    mean = sum(votes.share[:, k * width : (k + 1) * width] for k in range(votes.sources)) / n
    return csr_array(hstack([mean.sqrt(), votes.share / n**0.5, votes.confidence.sqrt()]))


def fit(
    votes: Votes, gold_groups: tuple[str, ...], gold: np.ndarray, fold: np.ndarray
) -> tuple[Ridge, np.ndarray]:
    """Fit, with the penalty that has the lowest squared error on inner folds.

    Args:
        votes: Votes on the training clips.
        gold_groups: Names of the columns of gold.
        gold: bool [clips, gold groups].
        fold: int64 [clips], inner fold of each.

    Returns:
        The regression, and float64 [clips, gold groups + 1], the log odds of every clip from the
        other folds. Cost: the cube of the clips for each fold and penalty.
    """
    x, y = inputs(votes, votes.groups), gold.astype(float)
    found = np.zeros((len(PENALTIES), *y.shape))
    means = np.zeros(y.shape)
    sizes = np.zeros(len(y), np.int64)
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        share = y[train].mean(axis=0)
        kernel = _centered(x[test], x[train])
        for number, dual in enumerate(_solved(x[train], y[train] - share, PENALTIES)):
            found[number, test] = kernel @ dual + share
        means[test], sizes[test] = share, train.sum()
    best = int(np.argmin(np.round(((found - y) ** 2).mean(axis=(1, 2)), 12)))
    share = y.mean(axis=0)
    dual = _solved(x, y - share, PENALTIES[best : best + 1])[0]
    model = Ridge(votes.groups, gold_groups, x, dual, share, PENALTIES[best])
    return model, _log_odds(found[best], means, sizes[:, None])


def _solved(x: csr_array, y: np.ndarray, penalties: Sequence[float]) -> list[np.ndarray]:
    """Dual weights for every penalty, float64 [clips, gold groups] each."""
    values, vectors = np.linalg.eigh(_centered(x, x))
    turned = vectors.T @ y
    return [vectors @ (turned / (np.maximum(values, 0)[:, None] + p)) for p in penalties]


def _centered(a: csr_array, b: csr_array) -> np.ndarray:
    """Products of rows less the mean row of ``b``, float64 [rows of a, rows of b]."""
    mean = b.sum(axis=0) / b.shape[0]
    plain = (a @ b.T).toarray()
    return plain - (a @ mean)[:, None] - (b @ mean)[None] + mean @ mean


def _log_odds(value: np.ndarray, share: np.ndarray, n: int | np.ndarray) -> np.ndarray:
    """Log odds of a regression's output, kept above a fifth of the group's frequency."""
    low = (np.broadcast_to(share, value.shape) * n + 0.5) / (n + 1)
    found = np.clip(value, 0.2 * low, 0.98)
    none = np.broadcast_to(0.1 / (np.asarray(n, float) + 1), (len(value), 1))
    return logit(np.concatenate([found, none], axis=1))
