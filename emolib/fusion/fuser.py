"""Our own co-judgment: how likely is each candidate, and which list scores best?

A :class:`Fuser` is fitted on training clips with gold labels. For a new clip it gives every
candidate group a calibrated probability (:mod:`~emolib.fusion.features`,
:mod:`~emolib.fusion.logistic`) and keeps the groups that maximise the expected score
(:mod:`~emolib.fusion.expected`). It never sees the new clip's gold: for clips that have gold,
:func:`cross_predict` fits on other folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from emolib.errors import ScoreError
from emolib.fusion import folds, logistic
from emolib.fusion.candidates import Confidences, GroupOf, Labels, Systems, candidates, clip_names
from emolib.fusion.expected import Objective, best_set
from emolib.fusion.features import feature_names, features
from emolib.fusion.statistics import Clip, Statistics, read_clip, word_counts
from emolib.scoring.grouping import ExactGrouping
from emolib.scoring.leak import check_leak

FORMAT = 1


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How a :class:`Fuser` decides.

    Attributes:
        objective: "avg" maximises the expected weighted mean of accuracy and recall, "f1" the
            clip's expected F1.
        precision_weight: Weight of accuracy in "avg", in [0, 1]; one half is the official Avg.
        cap: Longest list; None = no limit.
        add: So many of the groups most frequent in training gold are candidates of every clip,
            named or not; 0 = only what a system named.
        folds: Inner folds, from which counts, penalty and calibration are taken.
        seed: Seed of the inner folds.
    """

    objective: Objective = "avg"
    precision_weight: float = 0.5
    cap: int | None = None
    add: int = 0
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        good = self.objective in ("avg", "f1") and 0 <= self.precision_weight <= 1
        if not good or self.add < 0 or (self.cap is not None and self.cap < 1):
            raise ScoreError(
                f"{self}: objective is avg or f1, precision_weight in [0, 1], cap at least 1 or "
                "None, add at least 0"
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why one candidate was kept or dropped.

    Attributes:
        label: The word that stands in the list, or would.
        group: Its group.
        sources: Systems that named it; empty for an added one.
        probability: That the group is in the gold set, in [0, 1].
        gain: Kept: expected score it adds to the others. Dropped: what adding it would change.
        decision: "kept", "dropped", or "over the cap" (it would help, but the list is full).
    """

    label: str
    group: str
    sources: tuple[str, ...]
    probability: float
    gain: float
    decision: str


@dataclass(frozen=True, slots=True)
class Fuser:
    """A fitted fusion; plain data, see :meth:`to_json`.

    Attributes:
        systems: Systems it was fitted on, in order.
        confident: Those of them that gave confidences.
        settings: See :class:`FusionSettings`.
        grouping: ``{"name", "version"}`` of the groups.
        model: Probability of a candidate.
        stats: Counts over the training clips.
        missed: Distribution of the number of gold groups that are no candidate.
        words: Gold word -> training clips that have it; picks the word of a group.
        added: Groups that are candidates of every clip, most frequent first.
        trained_on: Names of the training clips, sorted; they are refused later.
    """

    systems: tuple[str, ...]
    confident: tuple[str, ...]
    settings: FusionSettings
    grouping: Mapping[str, str]
    model: logistic.Logistic
    stats: Statistics
    missed: tuple[float, ...]
    words: Mapping[str, int]
    added: tuple[str, ...]
    trained_on: tuple[str, ...]
    _group_of: GroupOf = field(compare=False, repr=False)

    def explain(
        self,
        preds: Systems,
        confidences: Confidences | None = None,
        *,
        allow_leak: bool = False,
    ) -> dict[str, list[Verdict]]:
        """Judge every candidate of every clip, most probable first.

        Args:
            preds: The systems the fuser was fitted on -> clip -> labels.
            confidences: The systems that had confidences then -> clip -> label -> [0, 1].
            allow_leak: Judge clips of the fit all the same, e.g. to look at them.

        Raises:
            LeakError: a clip was in the fit, so that its own gold would speak for it.
            ScoreError: other systems than in the fit, or clips that differ between systems.
        """
        preds, sure = _check(preds, confidences, self.systems, self.confident)
        names = clip_names(list(preds.values()))
        check_leak(names, {"the clips this fuser was fitted on": self.trained_on}, allow=allow_leak)
        speaker: dict[str, str] = {}
        for word in sorted(self.words, key=lambda w: (-self.words[w], w)):
            speaker.setdefault(self._group_of(word), word)
        return {name: self._judge(name, preds, sure, speaker) for name in names}

    def _judge(
        self, name: str, preds: Systems, sure: Confidences, speaker: Mapping[str, str]
    ) -> list[Verdict]:
        clip = read_clip(name, preds, sure, self._group_of)
        named = candidates(name, preds, self._group_of)
        groups = _candidate_groups(clip, self.added)
        if not groups:
            return []
        x = np.array([features(clip, g, self.stats, self.systems, self.confident) for g in groups])
        p = self.model.probability(x)
        s = self.settings
        choice = best_set(p, np.array(self.missed), s.objective, s.precision_weight, s.cap)
        kept = set(choice.chosen)
        verdicts = []
        for i in np.argsort(-p, kind="stable").tolist():
            found = named.get(groups[i])
            gain = float(choice.gains[i])
            over = i not in kept and gain > 1e-9
            verdicts.append(
                Verdict(
                    label=found.label(self.words) if found else speaker[groups[i]],
                    group=groups[i],
                    sources=found.sources if found else (),
                    probability=float(p[i]),
                    gain=gain,
                    decision="kept" if i in kept else "over the cap" if over else "dropped",
                )
            )
        return verdicts

    def predict(
        self,
        preds: Systems,
        confidences: Confidences | None = None,
        *,
        allow_leak: bool = False,
    ) -> dict[str, list[str]]:
        """Fuse: clip -> kept labels, most probable first. See :meth:`explain`."""
        return kept_labels(self.explain(preds, confidences, allow_leak=allow_leak))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` gives an equal fuser."""
        return {
            "format": FORMAT,
            "systems": list(self.systems),
            "confident": list(self.confident),
            "settings": asdict(self.settings),
            "grouping": dict(self.grouping),
            "model": self.model.to_json(),
            "stats": self.stats.to_json(),
            "missed": list(self.missed),
            "words": dict(self.words),
            "added": list(self.added),
            "trained_on": list(self.trained_on),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], grouping: object | None = None) -> Fuser:
        """Undo :meth:`to_json`.

        Args:
            data: What :meth:`to_json` gave.
            grouping: Needed when the fuser was fitted with a mapping of one's own.

        Raises:
            ScoreError: another format, or groups of another version than in the fit.
        """
        if data.get("format") != FORMAT:
            raise ScoreError(f"a fuser of format {data.get('format')!r}, expected {FORMAT}: refit")
        if grouping is None and data["grouping"]["name"] == "exact":
            grouping = ExactGrouping()
        group_of = GroupOf(grouping)
        here = {"name": group_of.name, "version": group_of.version}
        if here != data["grouping"]:
            raise ScoreError(
                f"the fuser was fitted with groups {data['grouping']}, here are {here}: give the "
                "same grouping, or fit again"
            )
        return cls(
            systems=tuple(data["systems"]),
            confident=tuple(data["confident"]),
            settings=FusionSettings(**data["settings"]),
            grouping=here,
            model=logistic.Logistic.from_json(data["model"]),
            stats=Statistics.from_json(data["stats"]),
            missed=tuple(data["missed"]),
            words=data["words"],
            added=tuple(data["added"]),
            trained_on=tuple(data["trained_on"]),
            _group_of=group_of,
        )


def kept_labels(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, list[str]]:
    """The lists that verdicts stand for."""
    return {
        name: [v.label for v in found if v.decision == "kept"] for name, found in verdicts.items()
    }


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
    preds, sure = _check(preds, confidences, tuple(preds), tuple(confidences or ()))
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
    rows, hits, row_fold, missed = [], [], [], []
    for k in range(settings.folds):
        others = Statistics.count([clips[c] for c in clips if fold_of[c] != k])
        for clip in (clips[c] for c in clips if fold_of[c] == k):
            groups = _candidate_groups(clip, added)
            missed.append(len(clip.gold.difference(groups)))
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
    return Fuser(
        systems=systems,
        confident=confident,
        settings=settings,
        grouping={"name": group_of.name, "version": group_of.version},
        model=logistic.fit(
            feature_names(systems, confident), np.array(rows), np.array(hits), np.array(row_fold)
        ),
        stats=stats,
        missed=tuple((counts / counts.sum()).tolist()),
        words=word_counts(gold, fold_of),
        added=added,
        trained_on=tuple(fold_of),
        _group_of=group_of,
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


def _candidate_groups(clip: Clip, added: Sequence[str]) -> list[str]:
    """Groups to judge, sorted, so that nothing depends on the order of labels."""
    return sorted(set(added).union(*clip.named.values()))


def _check(
    preds: Systems,
    confidences: Confidences | None,
    systems: tuple[str, ...],
    confident: tuple[str, ...],
) -> tuple[Systems, Confidences]:
    """Systems and confidences in the fit's order.

    Raises:
        ScoreError: not the same ones.
    """
    sure = confidences or {}
    if set(preds) != set(systems) or set(sure) != set(confident) or not preds:
        raise ScoreError(
            f"the fuser knows systems {list(systems)} (with confidences: {list(confident)}), got "
            f"{list(preds)} (with confidences: {list(sure)})"
        )
    if odd := sorted(set(sure) - set(preds)):
        raise ScoreError(f"confidences of {odd[0]!r}, which is none of the systems {list(preds)}")
    return {s: preds[s] for s in systems}, {s: sure[s] for s in confident}
