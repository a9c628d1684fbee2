"""Our own co-judgment: how likely is each candidate, and which list scores best?

A :class:`Fuser` is fitted on training clips with gold labels. For a new clip it gives every
candidate group a calibrated probability (:mod:`~emolib.fusion.features`,
:mod:`~emolib.fusion.logistic`) and keeps the groups that maximise the expected score
(:mod:`~emolib.fusion.expected`). It never sees the new clip's gold: for clips that have gold,
:func:`emolib.fusion.cross_predict` fits on other folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from emolib.errors import ScoreError
from emolib.fusion import logistic
from emolib.fusion.candidates import Confidences, GroupOf, Systems, candidates, clip_names
from emolib.fusion.expected import best_set
from emolib.fusion.features import features
from emolib.fusion.settings import FusionSettings
from emolib.fusion.statistics import Clip, Statistics, read_clip
from emolib.fusion.verdict import Verdict, kept_labels
from emolib.scoring.grouping import ExactGrouping
from emolib.scoring.leak import check_leak

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Fuser:
    """A fitted fusion; plain data, see :meth:`to_json`.

    Attributes:
        systems: Systems it was fitted on, in order.
        confident: Those of them that gave confidences.
        settings: See :class:`FusionSettings`.
        grouping: ``{"name", "version"}`` of the groups.
        model: Probability of a candidate.
        precision_weight: The settings', or the one that was found for "f1".
        stats: Counts over the training clips.
        missed: Distribution of the number of gold groups that are no candidate.
        words: Gold word -> training clips that have it; picks the word of a group.
        added: Groups that are candidates of every clip, most frequent first.
        trained_on: Names of the training clips, sorted; they are refused later.
        group_of: Label -> group.
    """

    systems: tuple[str, ...]
    confident: tuple[str, ...]
    settings: FusionSettings
    grouping: Mapping[str, str]
    model: logistic.Logistic
    precision_weight: float
    stats: Statistics
    missed: tuple[float, ...]
    words: Mapping[str, int]
    added: tuple[str, ...]
    trained_on: tuple[str, ...]
    group_of: GroupOf = field(compare=False, repr=False)

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
        preds, sure = check_systems(preds, confidences, self.systems, self.confident)
        names = clip_names(list(preds.values()))
        check_leak(names, {"the clips this fuser was fitted on": self.trained_on}, allow=allow_leak)
        speaker: dict[str, str] = {}
        for word in sorted(self.words, key=lambda w: (-self.words[w], w)):
            speaker.setdefault(self.group_of(word), word)
        return {name: self._judge(name, preds, sure, speaker) for name in names}

    def _judge(
        self, name: str, preds: Systems, sure: Confidences, speaker: Mapping[str, str]
    ) -> list[Verdict]:
        clip = read_clip(name, preds, sure, self.group_of)
        named = candidates(name, preds, self.group_of)
        groups = candidate_groups(clip, self.added)
        if not groups:
            return []
        x = np.array([features(clip, g, self.stats, self.systems, self.confident) for g in groups])
        p, parts = self.model.probability(x), self.model.contributions(x)
        s = self.settings
        choice = best_set(p, np.array(self.missed), s.objective, self.precision_weight, s.cap)
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
                    because=dict(zip(self.model.features, parts[i].tolist(), strict=True)),
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
            "precision_weight": self.precision_weight,
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
            precision_weight=data["precision_weight"],
            stats=Statistics.from_json(data["stats"]),
            missed=tuple(data["missed"]),
            words=data["words"],
            added=tuple(data["added"]),
            trained_on=tuple(data["trained_on"]),
            group_of=group_of,
        )


def candidate_groups(clip: Clip, added: Sequence[str]) -> list[str]:
    """Groups to judge, sorted, so that nothing depends on the order of labels."""
    return sorted(set(added).union(*clip.named.values()))


def check_systems(
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
