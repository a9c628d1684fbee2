r"""The list of labels with the highest expected score, exactly and fast.

Of one clip we know, for candidate groups i = 1..k, the probability p_i that group i is in the
gold set, and the distribution of M, the number of gold groups that are no candidate. Let
X_i be the indicator of group i, all of them and M independent, and N = sum_i X_i + M the
number of gold groups. A list S of m groups has H = sum_{i in S} X_i hits, so

    precision = H / m,   recall = H / N,   F1 = 2 H / (m + N)

(a hit implies N >= 1, so 0 / 0 counts as 0). Write N = X_i + N_i. By linearity

    E[precision] = sum_{i in S} p_i / m
    E[recall]    = sum_{i in S} p_i E[1 / (1 + N_i)]
    E[F1]        = sum_{i in S} 2 p_i E[1 / (1 + m + N_i)].

Because 1 / (1 + c) is the integral of t^c over [0, 1], and independent counts multiply,

    E[1 / (1 + c + N_i)] = integral of t^c G(t) prod_{j != i} (1 - p_j + p_j t) dt,

with G the generating function of M: a polynomial, which Gauss-Legendre quadrature integrates
exactly (to rounding). The k products that leave one factor out are one product divided by
each factor, none of which is 0 inside the interval.

**The best list of m groups is the m most probable ones.** Of two groups with p_a > p_b, let R
be the rest, A = E[1 / (1 + c + R)] and B = E[1 / (2 + c + R)]; their terms of recall or F1 are
p_a ((1 - p_b) A + p_b B) and p_b ((1 - p_a) A + p_a B), whose difference is A (p_a - p_b) > 0.
So k lists are compared instead of 2^k. Cost: O(k (k + M_max)); 20 candidates take about
0.1 ms.

Given that a clip has any gold group (N >= 1), all expectations are divided by the same
P(N >= 1), which moves no optimum.

**The F1 of a data set** is no mean over clips but F(A, R) = 2 A R / (A + R) of mean accuracy A
and mean recall R. Where it is highest, no small change of any list raises its linear part
dF = (2 R^2 dA + 2 A^2 dR) / (A + R)^2, so every clip's list maximises w A + (1 - w) R with
w = R^2 / (A^2 + R^2): :func:`f1_weight` finds that fixed point. Where A > R, it gives recall
more weight than one half.

**Several views.** Under the emotion wheels a label has a group in each of several views, and a
score is the mean over views. A list S of candidates names the groups G_v(S) in view v, so its
expected score is the weighted sum over views of the expectation above of G_v(S), which is exact
given each view's probabilities. Which list is best is no longer a matter of order, because two
candidates may share a group in one view and not in another: :func:`best_candidates` climbs from
the best list of the most probable ones, by adding, dropping and swapping, to a list that none of
these steps improves. A property test compares it with brute force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

Objective = Literal["avg", "f1", "clip_f1"]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The best list and what every candidate does for it.

    Attributes:
        chosen: Indices of the groups in the list, most probable first.
        value: Expected score of the list, in [0, 1].
        gains: float64 [k], for a chosen group the expected score it adds to the others, for
            any other group what adding it would change. Without a cap the first are >= 0 and
            the second <= 0.
    """

    chosen: tuple[int, ...]
    value: float
    gains: np.ndarray


def expected_terms(
    p: np.ndarray, missed: np.ndarray, objective: Objective = "avg", precision_weight: float = 0.5
) -> np.ndarray:
    """Expected contribution of every candidate to a list of every length.

    Args:
        p: float64 [k], probability of each candidate group, in [0, 1].
        missed: float64 [M_max + 1], distribution of the number of further gold groups.
        objective: "avg" and "f1": precision_weight * precision + (1 - precision_weight) *
            recall; "clip_f1": the clip's F1.
        precision_weight: In [0, 1]; one half gives Avg. Not used by "clip_f1".

    Returns:
        float64 [k + 1, k]: row m holds the terms in a list of m groups; row 0 is 0. The
        expected score of a list is the sum of its groups' terms in the row of its length.
    """
    p = np.asarray(p, float)
    k = len(p)
    lengths = np.arange(k + 1)[:, None]
    nodes, weights = _gauss((2 * k + len(missed)) // 2 + 1)
    factors = 1 - p[:, None] + p[:, None] * nodes  # [k, nodes], each >= node > 0
    generating = np.polynomial.polynomial.polyval(nodes, np.asarray(missed, float))
    others = factors.prod(axis=0) * generating * weights / factors  # [k, nodes]
    if objective == "clip_f1":
        terms = 2 * p * (nodes ** np.arange(k + 1)[:, None] @ others.T)
    else:
        recall = p * others.sum(axis=1)
        terms = precision_weight * p / np.maximum(lengths, 1) + (1 - precision_weight) * recall
    return np.where(lengths > 0, terms, 0.0)


@lru_cache(maxsize=256)
def _gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1], exact for polynomials up to degree 2n - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


def best_set(
    p: np.ndarray,
    missed: np.ndarray,
    objective: Objective = "avg",
    precision_weight: float = 0.5,
    cap: int | None = None,
    price: float = 0.0,
) -> Choice:
    """Choose the list with the highest expected score; see the module for why it is exact.

    Equal probabilities are taken in the order given, of equally good lists the shortest; a
    list that cannot score is empty.

    Args:
        p: float64 [k], see :func:`expected_terms`.
        missed: float64 [M_max + 1].
        objective: What to maximise.
        precision_weight: See :func:`expected_terms`.
        cap: Longest list allowed; None = no limit.
        price: What a label must add at least: taken off the score for each label.
    """
    p = np.asarray(p, float)
    k = len(p)
    terms = expected_terms(p, missed, objective, precision_weight)
    order = np.argsort(-p, kind="stable")
    longest = k if cap is None else min(cap, k)
    values = np.array([terms[m, order[:m]].sum() - price * m for m in range(longest + 1)])
    m = int(np.argmax(np.round(values, 12)))
    chosen = order[:m]
    gains = np.zeros(k)
    kept = np.zeros(k, bool)
    kept[chosen] = True
    if m:
        fewer = terms[m - 1]
        gains[kept] = values[m] - (fewer[kept].sum() - fewer[kept] - price * (m - 1))
    if m < k:
        more = terms[m + 1]
        gains[~kept] = more[kept].sum() + more[~kept] - price * (m + 1) - values[m]
    return Choice(tuple(chosen.tolist()), float(values[m]), gains)


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """One view of a clip: what its groups are expected to add to a list.

    Attributes:
        group: int64 [candidates], group of each candidate in this view; -1 = none.
        terms: float64 [k + 1, k], of :func:`expected_terms` over the view's groups.
        weight: Share of the view in the score.
    """

    group: np.ndarray
    terms: np.ndarray
    weight: float

    def value(self, chosen: np.ndarray) -> np.ndarray:
        """Return the expected score of several lists in this view.

        Args:
            chosen: bool [lists, candidates].

        Returns:
            float64 [lists].
        """
        member = np.zeros((len(self.group), self.terms.shape[1] + 1))
        member[np.arange(len(self.group)), self.group] = 1.0
        named = (chosen @ member)[:, :-1] > 0
        return (self.terms[named.sum(axis=1)] * named).sum(axis=1)


def best_candidates(
    views: Sequence[Expectation], p: np.ndarray, cap: int | None = None, price: float = 0.0
) -> Choice:
    """Choose candidates that have groups in several views.

    Args:
        views: The views, at least one.
        p: float64 [k], how probable each candidate is, mean over views: orders the first try.
        cap: Longest list allowed; None = no limit.
        price: See :func:`best_set`.

    Returns:
        A list that no addition, removal or swap of one candidate improves. Cost: the square of
        the candidates for each step.
    """
    k = len(p)
    longest = k if cap is None else min(cap, k)

    def values(lists: np.ndarray) -> np.ndarray:
        cost = price * lists.sum(axis=1)
        return np.round(sum(v.weight * v.value(lists) for v in views) - cost, 12)

    order = np.argsort(-p, kind="stable")
    first = np.zeros((longest + 1, k))
    for m in range(longest + 1):
        first[m, order[:m]] = 1.0
    scores = values(first)
    best = int(np.argmax(scores))
    chosen, value = first[best], float(scores[best])
    while k:
        inside, outside = (np.flatnonzero(chosen == on).tolist() for on in (1, 0))
        steps: list[tuple[int | None, int | None]] = [(i, None) for i in inside]
        steps += [(None, j) for j in outside if len(inside) < longest]
        steps += [(i, j) for i in inside for j in outside]
        near = np.repeat(chosen[None], len(steps), axis=0)
        for row, (drop, add) in zip(near, steps, strict=True):
            if drop is not None:
                row[drop] = 0.0
            if add is not None:
                row[add] = 1.0
        scores = values(near)
        if not len(scores) or scores.max() <= value + 1e-11:
            break
        chosen, value = near[int(np.argmax(scores))], float(scores.max())
    flipped = np.abs(np.repeat(chosen[None], k, axis=0) - np.eye(k))
    gains = (values(flipped) - value) * np.where(chosen > 0, -1, 1) if k else np.zeros(0)
    return Choice(tuple(i for i in order.tolist() if chosen[i]), value, gains)


def f1_weight(
    clips: Sequence[np.ndarray], missed: np.ndarray, cap: int | None = None, price: float = 0.0
) -> float:
    """The precision weight with which expected lists reach the highest F1 of the data set.

    Args:
        clips: float64 [k] of each clip, probabilities of its candidates.
        missed: float64 [M_max + 1], see :func:`expected_terms`.
        cap: Longest list.
        price: See :func:`best_set`.

    Returns:
        In [0.05, 0.95]; one half when no clip has a candidate. Found on a grid of the trade-off
        by the F1 of the expected accuracy and recall. Cost: 19 choices a clip.
    """
    curves = []  # expected accuracy and recall of the m most probable, m = 0, 1, ...
    for p in (np.asarray(p, float) for p in clips if len(p)):
        order = np.argsort(-p, kind="stable")[:cap]
        totals = (expected_terms(p, missed, "avg", w)[: len(order) + 1, order] for w in (1.0, 0.0))
        curves.append([np.tril(terms, -1).sum(axis=1) for terms in totals])
    best, weight = 0.0, 0.5
    for step in sorted(range(1, 20), key=lambda step: abs(step - 10)):
        w = step / 20
        chosen = [
            int(np.argmax(np.round(w * a + (1 - w) * r - price * np.arange(len(a)), 12)))
            for a, r in curves
        ]
        accuracy, recall = (
            sum(float(curve[side][m]) for curve, m in zip(curves, chosen, strict=True))
            for side in (0, 1)
        )
        score = round(2 * accuracy * recall / max(accuracy + recall, 1e-12), 12)
        if score > best:
            best, weight = score, w
    return weight
