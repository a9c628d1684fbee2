"""Fit a fuser: on training clips, and fold by fold for clips that have gold labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emolib.errors import ScoreError
from emolib.fusion import folds, logistic
from emolib.fusion.candidates import Confidences, GroupOf, Labels, Systems
from emolib.fusion.expected import f1_weight
from emolib.fusion.features import feature_names, features
from emolib.fusion.fuser import Fuser, candidate_groups, check_systems
from emolib.fusion.settings import FusionSettings
from emolib.fusion.statistics import Statistics, read_clip, word_counts
from emolib.fusion.verdict import Verdict, kept_labels


def fit(
    gold: Labels,
    preds: Systems,
    confidences: Confidences | None = None,
    *,
    settings: FusionSettings | None = None,
    grouping: object | None = None,
    blocks: Mapping[str, str] | None = None,
) -> Fuser:
    """Fit on clips with gold labels.

    Counts that describe a training clip come from other inner folds, as they will for a new
    clip. Cost: some milliseconds a clip.

    Args:
        gold: Clip -> reference labels, at least one each; only these clips are used.
        preds: System -> clip -> labels, on at least the gold clips.
        confidences: System -> clip -> label -> confidence in [0, 1], for any of the systems.
        settings: See :class:`FusionSettings`.
        grouping: Which words are synonyms: lexicon (default), exact or a mapping.
        blocks: Clip -> what it must share an inner fold with, see :func:`folds.split`.

    Raises:
        ScoreError: clips without gold labels or predictions, too few clips for the folds, or no
            candidate that is right, or none that is wrong.
    """
    settings = settings or FusionSettings()
    group_of = GroupOf(grouping)
    preds, sure = check_systems(preds, confidences, tuple(preds), tuple(confidences or ()))
    if empty := [c for c in gold if not group_of.set_of(gold[c])]:
        raise ScoreError(f"{len(empty)} training clips have no gold label (first: {empty[0]!r})")
    for system, labels in preds.items():
        if lost := [c for c in gold if c not in labels]:
            raise ScoreError(
                f"{len(lost)} training clips have no prediction of {system!r} (first: {lost[0]!r})"
            )
    systems, confident = tuple(preds), tuple(sure)
    fold_of = folds.split(gold, settings.folds, settings.seed, blocks)
    clips = {c: read_clip(c, preds, sure, group_of, gold) for c in fold_of}
    stats = Statistics.count(list(clips.values()))
    added = tuple(sorted(stats.gold, key=lambda g: (-stats.gold[g], g))[: settings.add])
    rows, hits, row_fold, missed, sizes = [], [], [], [], []
    for k in range(settings.folds):
        others = Statistics.count([clips[c] for c in clips if fold_of[c] != k])
        for clip in (clips[c] for c in clips if fold_of[c] == k):
            groups = candidate_groups(clip, added)
            missed.append(len(clip.gold.difference(groups)))
            sizes.append(len(groups))
            for group in groups:
                rows.append(features(clip, group, others, systems, confident))
                hits.append(float(group in clip.gold))
                row_fold.append(k)
    if len(set(hits)) < 2:
        raise ScoreError(
            f"{len(hits)} candidates on {len(clips)} training clips, of which all or none are "
            "right: nothing can be learned from them"
        )
    counts = np.bincount(missed) + 1.0  # one imaginary clip a count
    lost = counts / counts.sum()
    model, p = logistic.fit(
        feature_names(systems, confident), np.array(rows), np.array(hits), np.array(row_fold)
    )
    weight = settings.precision_weight
    if settings.objective == "f1":
        weight = f1_weight(np.split(p, np.cumsum(sizes)[:-1]), lost, settings.cap)
    return Fuser(
        systems=systems,
        confident=confident,
        settings=settings,
        grouping={"name": group_of.name, "version": group_of.version},
        model=model,
        precision_weight=weight,
        stats=stats,
        missed=tuple(lost.tolist()),
        words=word_counts(gold, fold_of),
        added=added,
        trained_on=tuple(fold_of),
        group_of=group_of,
    )


@dataclass(frozen=True, slots=True)
class CrossFusion:
    """Out-of-fold fusion of clips that have gold labels.

    Attributes:
        labels: Clip -> fused labels.
        verdicts: Clip -> judgement of every candidate.
        fold_of: Clip -> outer fold; its labels come from a fuser that saw the other folds only.
        fusers: The fuser of each outer fold.
    """

    labels: dict[str, list[str]]
    verdicts: dict[str, list[Verdict]]
    fold_of: dict[str, int]
    fusers: tuple[Fuser, ...]


def cross_predict(
    gold: Labels,
    preds: Systems,
    confidences: Confidences | None = None,
    *,
    settings: FusionSettings | None = None,
    grouping: object | None = None,
    blocks: Mapping[str, str] | None = None,
    outer: int = 10,
    seed: int = 0,
) -> CrossFusion:
    """Fuse every clip by a fuser that was fitted without it: nested cross-validation.

    Folds depend on names and blocks alone, so no clip's result depends on its own gold.

    Args:
        gold: Clip -> reference labels.
        preds: See :func:`fit`.
        confidences: See :func:`fit`.
        settings: See :func:`fit`; everything chosen is chosen on inner folds.
        grouping: See :func:`fit`.
        blocks: Clips that must not be parted, for outer and inner folds.
        outer: Number of outer folds.
        seed: Seed of the outer folds.

    Raises:
        ScoreError: see :func:`fit`.
    """
    fold_of = folds.split(gold, outer, seed, blocks)
    found: dict[str, list[Verdict]] = {}
    fusers = []
    for k in range(outer):
        train = {c: gold[c] for c in gold if fold_of[c] != k}
        fuser = fit(train, preds, confidences, settings=settings, grouping=grouping, blocks=blocks)
        test = {s: {c: labels[c] for c in gold if fold_of[c] == k} for s, labels in preds.items()}
        found.update(fuser.explain(test, confidences))
        fusers.append(fuser)
    verdicts = {c: found[c] for c in gold}
    return CrossFusion(kept_labels(verdicts), verdicts, fold_of, tuple(fusers))
