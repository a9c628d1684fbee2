"""Fit a fuser: on training clips, and fold by fold for clips that have gold labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emolib.errors import ScoreError
from emolib.fusion import folds, logistic, ridge
from emolib.fusion.candidates import Confidences, GroupOf, Labels, Systems
from emolib.fusion.expected import f1_weight
from emolib.fusion.features import candidate_mask, feature_names, features
from emolib.fusion.fuser import Fuser, View, check_systems
from emolib.fusion.settings import FusionSettings
from emolib.fusion.statistics import Statistics, word_counts
from emolib.fusion.verdict import Verdict, kept_labels
from emolib.fusion.votes import Votes, gold_table, read_votes, source_names


def fit(
    gold: Labels,
    preds: Systems,
    confidences: Confidences | None = None,
    *,
    settings: FusionSettings | None = None,
    grouping: object | None = None,
    blocks: Mapping[str, str] | None = None,
    families: Mapping[str, str] | None = None,
) -> Fuser:
    """Fit on clips with gold labels.

    Counts that describe a training clip come from other inner folds, as they will for a new
    clip. Cost: about a second for 300 clips and ten sources.

    Args:
        gold: Clip -> reference labels, at least one each; only these clips are used.
        preds: System -> clip -> labels, on at least the gold clips.
        confidences: System -> clip -> label -> confidence in [0, 1], for any of the systems.
        settings: See :class:`FusionSettings`.
        grouping: Which words are synonyms, see :class:`GroupOf`: the lexicon (default), another
            grouping that depends on the label alone, a dictionary, or several of them, whose
            expected scores are then averaged.
        blocks: Clip -> what it must share an inner fold with, see :func:`folds.split`.
        families: System -> source, for outputs of one model under several conditions: they are
            one source, whose vote is the share of its systems that named a group.

    Raises:
        ScoreError: clips without gold labels or predictions, too few clips for the folds, or no
            candidate that is right, or none that is wrong.
    """
    settings = settings or FusionSettings()
    group_of = GroupOf(grouping)
    preds, sure = check_systems(preds, confidences, tuple(preds), tuple(confidences or ()))
    families = _checked(families, preds)
    _check_clips(gold, preds, group_of)
    names = sorted(gold)
    votes = read_votes(names, preds, sure, group_of, families)
    return _fit(names, votes, gold, preds, sure, settings, group_of, blocks, families)


def _fit(
    names: Sequence[str],
    votes: Sequence[Votes],
    gold: Labels,
    preds: Systems,
    sure: Confidences,
    settings: FusionSettings,
    group_of: GroupOf,
    blocks: Mapping[str, str] | None,
    families: Mapping[str, str],
) -> Fuser:
    """Fit on clips whose votes were read already, in the order of the names."""
    fold_of = folds.split(names, settings.folds, settings.seed, blocks)
    fold = np.array([fold_of[name] for name in names])
    inputs = feature_names(source_names(preds, families), tuple(sure), settings.similar)
    views = []
    for v, found in enumerate(votes):
        gold_groups, table = gold_table(names, gold, group_of, v)
        valid = np.any(
            table, axis=1
        )  # clips whose gold is outside this view do not enter its score
        views.append(
            _fit_view(found.rows(valid), gold_groups, table[valid], fold[valid], inputs, settings)
        )
    return Fuser(
        systems=tuple(preds),
        confident=tuple(sure),
        families=dict(families),
        settings=settings,
        grouping={"name": group_of.name, "version": group_of.version},
        views=tuple(views),
        words=word_counts(gold, names),
        trained_on=tuple(names),
        group_of=group_of,
    )


def _fit_view(
    votes: Votes,
    gold_groups: tuple[str, ...],
    gold: np.ndarray,
    fold: np.ndarray,
    inputs: tuple[str, ...],
    settings: FusionSettings,
) -> View:
    """Fit the probabilities of one view.

    Args:
        votes: Votes on the training clips.
        gold_groups: Names of the columns of gold.
        gold: bool [clips, gold groups], at least one in each row.
        fold: int64 [clips], inner folds.
        inputs: Names of the features.
        settings: See :class:`FusionSettings`.
    """
    stats = Statistics.count(votes, gold_groups, gold)
    often = np.argsort(-stats.gold, kind="stable")[: settings.add]
    added = tuple(gold_groups[column] for column in often)
    votes = votes.including(added)
    mask = candidate_mask(votes, added)
    at = stats.columns(votes.groups)
    truth = np.column_stack([gold, np.zeros(len(gold), bool)])[:, at]  # [clips, groups]
    clip, _ = np.nonzero(mask)
    x = np.zeros((len(clip), len(inputs) - settings.similar))
    for k in np.unique(fold):
        test = fold == k
        others = Statistics.count(votes.rows(~test), gold_groups, gold[~test])
        x[test[clip]] = features(votes.rows(test), others, mask[test])
    similar = None
    if settings.similar:
        similar, odds = ridge.fit(votes, gold_groups, gold, fold)
        x = np.column_stack([x, odds[:, at][mask]])
    hits = truth[mask].astype(float)
    if len(set(hits.tolist())) < 2:
        raise ScoreError(
            f"{len(hits)} candidates on {len(gold)} training clips, of which all or none are "
            "right: nothing can be learned from them"
        )
    counts = np.bincount(gold.sum(axis=1) - (truth & mask).sum(axis=1)) + 1.0
    missed = counts / counts.sum()  # one imaginary clip a count
    model, p = logistic.fit(inputs, x, hits, fold[clip])
    weight = settings.precision_weight
    if settings.objective == "f1":
        ends = np.cumsum(mask.sum(axis=1))[:-1]
        weight = f1_weight(np.split(p, ends), missed, settings.cap, settings.price)
    return View(model, weight, stats, tuple(missed.tolist()), added, similar)


def _check_clips(gold: Labels, preds: Systems, group_of: GroupOf) -> None:
    if empty := [clip for clip in gold if not gold[clip]]:
        raise ScoreError(f"{len(empty)} training clips have no gold label (first: {empty[0]!r})")
    for system, labels in preds.items():
        if lost := [clip for clip in gold if clip not in labels]:
            raise ScoreError(
                f"{len(lost)} training clips have no prediction of {system!r} (first: {lost[0]!r})"
            )
    if not any(group_of.set_of(gold[clip]) for clip in gold):
        raise ScoreError(f"none of the gold labels has a group in {group_of.name}")


def _checked(families: Mapping[str, str] | None, preds: Systems) -> Mapping[str, str]:
    if odd := sorted(set(families or ()) - set(preds)):
        raise ScoreError(f"families: {odd[0]!r} is none of the systems {list(preds)}")
    return families or {}


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
    families: Mapping[str, str] | None = None,
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
        families: See :func:`fit`.
        outer: Number of outer folds.
        seed: Seed of the outer folds.

    Raises:
        ScoreError: see :func:`fit`.
    """
    settings = settings or FusionSettings()
    group_of = GroupOf(grouping)
    preds, sure = check_systems(preds, confidences, tuple(preds), tuple(confidences or ()))
    families = _checked(families, preds)
    _check_clips(gold, preds, group_of)
    fold_of = folds.split(gold, outer, seed, blocks)
    names = sorted(gold)
    votes = read_votes(names, preds, sure, group_of, families)  # of labels alone, not of gold
    fold = np.array([fold_of[name] for name in names])
    found: dict[str, list[Verdict]] = {}
    fusers = []
    for k in range(outer):
        test = fold == k
        train = {name: gold[name] for name in names if fold_of[name] != k}
        held = [name for name in names if fold_of[name] == k]
        known = [part.rows(~test) for part in votes]
        fuser = _fit(list(train), known, train, preds, sure, settings, group_of, blocks, families)
        found.update(fuser.verdicts(held, preds, [part.rows(test) for part in votes]))
        fusers.append(fuser)
    verdicts = {clip: found[clip] for clip in gold}
    return CrossFusion(kept_labels(verdicts), verdicts, fold_of, tuple(fusers))
