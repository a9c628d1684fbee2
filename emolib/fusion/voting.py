"""Co-judgment by rule: the paper's splicing, group-aware union, majority and weighted vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emolib.errors import ScoreError
from emolib.fusion.candidates import GroupOf, Labels, Systems, candidates, clip_names
from emolib.labels import normalise


def concat(preds: Sequence[Labels]) -> dict[str, list[str]]:
    """Splice the label lists of several systems clip by clip, as the paper does.

    Labels keep their order of first appearance; repeats (after normalisation) are dropped.
    The union can only lengthen lists: recall rises, accuracy usually falls.

    Args:
        preds: One mapping clip name -> labels a system, all over the same clips.

    Raises:
        ScoreError: nothing given, or the systems do not cover the same clips.

    Source: arXiv 2408.11286, section 2.3 ("splices" the outputs of its models).
    """
    joined = {}
    for name in clip_names(preds):
        labels = dict.fromkeys(normalise(x) for system in preds for x in system[name])
        joined[name] = [label for label in labels if label]
    return joined


def union(preds: Systems, grouping: object | None = None) -> dict[str, list[str]]:
    """Everything any system named, synonyms once: one word a group.

    Args:
        preds: System name -> clip name -> labels, all over the same clips.
        grouping: Which words are synonyms; the lexicon by default.

    Raises:
        ScoreError: see :func:`concat`, or a grouping that fusion cannot use.
    """
    return weighted_vote(preds, dict.fromkeys(preds, 1.0), 0.0, grouping)


def majority(
    preds: Systems, at_least: int | None = None, grouping: object | None = None
) -> dict[str, list[str]]:
    """Groups named by most systems.

    A clip on which no group has enough votes gets the groups with the most votes, so that a
    list is empty only when all systems' lists are.

    Args:
        preds: System name -> clip name -> labels, all over the same clips.
        at_least: Votes a group needs; None = more than half of the systems.
        grouping: Which words are synonyms; the lexicon by default.

    Raises:
        ScoreError: see :func:`union`.
    """
    votes = at_least if at_least is not None else len(preds) // 2 + 1
    share = votes / max(len(preds), 1)
    return weighted_vote(preds, dict.fromkeys(preds, 1.0), share, grouping)


def weighted_vote(
    preds: Systems,
    weights: Mapping[str, float],
    threshold: float = 0.5,
    grouping: object | None = None,
) -> dict[str, list[str]]:
    """Groups whose systems hold at least ``threshold`` of all weight, heaviest first.

    A clip on which no group has enough gets its heaviest groups. Linear in the labels.

    Args:
        preds: System name -> clip name -> labels, all over the same clips.
        weights: System name -> weight >= 0; e.g. of :func:`fit_vote`.
        threshold: Share of the total weight, in [0, 1].
        grouping: Which words are synonyms; the lexicon by default.

    Raises:
        ScoreError: see :func:`union`; or a system without a weight, or a negative one.
    """
    names = clip_names(list(preds.values()))
    if odd := [s for s in preds if not weights.get(s, -1.0) >= 0]:
        raise ScoreError(f"system {odd[0]!r} needs a weight of 0 or more in {dict(weights)}")
    total = sum(weights[s] for s in preds)
    group_of = GroupOf(grouping)
    chosen = {}
    for name in names:
        found = candidates(name, preds, group_of)
        heard = {g: sum(weights[s] for s in c.named) for g, c in found.items()}
        chosen[name] = [found[group].label() for group in _kept(heard, threshold * total)]
    return chosen


def _kept(heard: Mapping[str, float], enough: float) -> list[str]:
    """Groups with enough weight, heaviest first; the heaviest ones where none has."""
    least = min(enough, max(heard.values(), default=0.0)) - 1e-9
    return sorted((g for g in heard if heard[g] >= least), key=lambda g: -heard[g])


@dataclass(frozen=True, slots=True)
class Vote:
    """A weighted vote fitted on training clips.

    Attributes:
        weights: System -> share of its groups that are right, smoothed.
        threshold: Share of all weight a group needs, in [0, 1].
    """

    weights: Mapping[str, float]
    threshold: float

    def predict(self, preds: Systems, grouping: object | None = None) -> dict[str, list[str]]:
        """Fuse clips that were not in the fit; see :func:`weighted_vote`."""
        return weighted_vote(preds, self.weights, self.threshold, grouping)


def fit_vote(gold: Labels, preds: Systems, grouping: object | None = None) -> Vote:
    """Weight every system by its precision, and choose the threshold with the best Avg.

    Cost: one vote a threshold, of which there are at most as many as sets of systems, 64 tried.

    Args:
        gold: Reference labels of training clips: never those that are fused with the result.
        preds: Predictions on at least these clips.
        grouping: Which words are synonyms; the lexicon by default.

    Raises:
        ScoreError: no clip, or a clip without gold label or prediction.
    """
    group_of = GroupOf(grouping)
    true = {clip: found for clip in gold if (found := group_of.set_of(gold[clip]))}
    if not true or not all(gold.values()) or any(c not in preds[s] for s in preds for c in true):
        raise ScoreError("a vote is fitted on clips that all have gold labels and predictions")
    said = {s: {clip: group_of.set_of(preds[s][clip]) for clip in true} for s in preds}
    weights = {}
    for system, groups in said.items():
        hits = sum(len(groups[c] & true[c]) for c in true)
        weights[system] = (hits + 1) / (sum(len(groups[c]) for c in true) + 2)

    heard: dict[str, dict[str, float]] = {clip: {} for clip in true}
    for system, groups in said.items():
        for clip, found in groups.items():
            for group in found:
                heard[clip][group] = heard[clip].get(group, 0.0) + weights[system]
    total = sum(weights.values())

    def avg(threshold: float) -> float:
        scores = 0.0
        for clip, groups in heard.items():
            kept = _kept(groups, threshold * total)
            hits = len(true[clip].intersection(kept))
            scores += hits / max(len(kept), 1) + hits / len(true[clip])
        return round(scores, 9)

    sums = {0.0}
    for weight in weights.values():
        sums |= {x + weight for x in sums} if len(sums) < 32 else set()
    return Vote(weights, max(sorted(min(x / total, 1.0) for x in sums), key=avg))
