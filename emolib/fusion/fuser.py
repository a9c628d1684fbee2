"""Calibrated fusion: how likely is each candidate, and which list scores best?

A :class:`Fuser` is fitted on training clips with gold labels. For a new clip it gives every
candidate a calibrated probability in every view of the grouping (:mod:`~emolib.fusion.features`,
:mod:`~emolib.fusion.logistic`) and keeps the candidates that maximise the expected score
(:mod:`~emolib.fusion.expected`). It never sees the new clip's gold: for clips that have gold,
:func:`emolib.fusion.cross_predict` fits on other folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from emolib.errors import ScoreError
from emolib.fusion import logistic, ridge
from emolib.fusion.candidates import (
    Candidate,
    Confidences,
    GroupOf,
    Systems,
    candidates,
    clip_names,
)
from emolib.fusion.expected import (
    Choice,
    Expectation,
    best_candidates,
    best_set,
    expected_terms,
)
from emolib.fusion.features import candidate_mask, features
from emolib.fusion.settings import FusionSettings
from emolib.fusion.statistics import Statistics
from emolib.fusion.verdict import Verdict, kept_labels
from emolib.fusion.votes import Votes, read_votes
from emolib.scoring.grouping import ExactGrouping
from emolib.scoring.leak import check_leak

FORMAT = 3


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What was fitted for one view of the labels.

    Attributes:
        model: Probability that a candidate's group is in gold.
        precision_weight: The settings', or the one that was found for "f1".
        stats: Counts over the training clips.
        missed: Distribution of the number of gold groups that are no candidate.
        added: Groups that are candidates of every clip, most frequent first.
        similar: Regression on all votes, or None.
    """

    model: logistic.Logistic
    precision_weight: float
    stats: Statistics
    missed: tuple[float, ...]
    added: tuple[str, ...]
    similar: ridge.Ridge | None

    def judge(self, votes: Votes) -> list[tuple[dict[str, int], np.ndarray, np.ndarray]]:
        """Return for each clip its groups with their rows, probabilities and contributions."""
        votes = votes.including(self.added)
        mask = candidate_mask(votes, self.added)
        x = features(votes, self.stats, mask)
        if self.similar is not None:
            odds = self.similar.predict(votes)[:, self.stats.columns(votes.groups)]
            x = np.column_stack([x, odds[mask]])
        p, parts = self.model.probability(x), self.model.contributions(x)
        found, start = [], 0
        for row in mask:
            groups = {votes.groups[column]: k for k, column in enumerate(np.flatnonzero(row))}
            end = start + len(groups)
            found.append((groups, p[start:end], parts[start:end]))
            start = end
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "model": self.model.to_json(),
            "precision_weight": self.precision_weight,
            "stats": self.stats.to_json(),
            "missed": list(self.missed),
            "added": list(self.added),
            "similar": None if self.similar is None else self.similar.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> View:
        """Undo :meth:`to_json`."""
        return cls(
            model=logistic.Logistic.from_json(data["model"]),
            precision_weight=data["precision_weight"],
            stats=Statistics.from_json(data["stats"]),
            missed=tuple(data["missed"]),
            added=tuple(data["added"]),
            similar=None if data["similar"] is None else ridge.Ridge.from_json(data["similar"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fuser:
    """A fitted fusion; plain data, see :meth:`to_json`.

    Attributes:
        systems: Systems it was fitted on, in order.
        confident: Those of them that gave confidences.
        families: System -> source, for systems that are one source together.
        settings: See :class:`FusionSettings`.
        grouping: ``{"name", "version"}`` of the groups.
        views: What was fitted, for each view of the grouping.
        words: Gold word -> training clips that have it; picks the word of a group.
        trained_on: Names of the training clips, sorted; they are refused later.
        group_of: Label -> group.
    """

    systems: tuple[str, ...]
    confident: tuple[str, ...]
    families: Mapping[str, str]
    settings: FusionSettings
    grouping: Mapping[str, str]
    views: tuple[View, ...]
    words: Mapping[str, int]
    trained_on: tuple[str, ...]
    group_of: GroupOf = field(repr=False)

    @property
    def precision_weight(self) -> float:
        """Weight of accuracy, mean over the views."""
        return float(self.group_of.weights @ [view.precision_weight for view in self.views])

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
        votes = read_votes(names, preds, sure, self.group_of, self.families)
        return self.verdicts(names, preds, votes)

    def verdicts(
        self, names: Sequence[str], preds: Systems, votes: Sequence[Votes]
    ) -> dict[str, list[Verdict]]:
        """Judge clips whose votes were read already; see :meth:`explain`.

        Args:
            names: Clips, none of them of the fit.
            preds: System -> clip -> labels.
            votes: For each view, what was named on these clips.
        """
        speaker: dict[str, str] = {}
        for word in sorted(self.words, key=lambda w: (-self.words[w], w)):
            if (group := self.group_of(word)) is not None:
                speaker.setdefault(group, word)
        judged = [view.judge(found) for view, found in zip(self.views, votes, strict=True)]
        return {
            name: self._judge(
                candidates(name, preds, self.group_of), [rows[at] for rows in judged], speaker
            )
            for at, name in enumerate(names)
        }

    def _judge(
        self,
        named: Mapping[str, Candidate],
        judged: Sequence[tuple[dict[str, int], np.ndarray, np.ndarray]],
        speaker: Mapping[str, str],
    ) -> list[Verdict]:
        always = {g for g in speaker if self._is_added(g)} if self.settings.add else set()
        groups = sorted({*named, *always})
        if not groups:
            return []
        parts = [self.group_of.views(group) for group in groups]
        p, because = np.zeros(len(groups)), np.zeros((len(groups), judged[0][2].shape[1]))
        expected = []
        for v, (rows, chance, moves) in enumerate(judged):
            at = np.array([rows.get(row[v] or "", -1) for row in parts], np.int64)
            inside = at >= 0
            weight = float(self.group_of.weights[v])
            p[inside] += weight * chance[at[inside]]
            because[inside] += weight * moves[at[inside]]
            expected.append((at, chance, weight))
        choice = self._choose(expected, p)
        kept = set(choice.chosen)
        verdicts = []
        for i in np.argsort(-p, kind="stable").tolist():
            found = named.get(groups[i])
            gain = float(choice.gains[i])
            over = i not in kept and gain > 1e-9
            names = self.views[0].model.features
            verdicts.append(
                Verdict(
                    label=found.label(self.words) if found else speaker[groups[i]],
                    group=groups[i],
                    sources=found.sources if found else (),
                    probability=float(p[i]),
                    gain=gain,
                    decision="kept" if i in kept else "over the cap" if over else "dropped",
                    because=dict(zip(names, because[i].tolist(), strict=True)),
                )
            )
        return verdicts

    def _choose(
        self, judged: Sequence[tuple[np.ndarray, np.ndarray, float]], p: np.ndarray
    ) -> Choice:
        """Choose the list with the best expected score: exactly where there is one view."""
        s = self.settings
        if len(self.views) == 1:
            view = self.views[0]
            missed = np.array(view.missed)
            return best_set(p, missed, s.objective, view.precision_weight, s.cap, s.price)
        expected = [
            Expectation(
                at,
                expected_terms(chance, np.array(view.missed), s.objective, view.precision_weight),
                weight,
            )
            for view, (at, chance, weight) in zip(self.views, judged, strict=True)
        ]
        return best_candidates(expected, p, s.cap, s.price)

    def _is_added(self, group: str) -> bool:
        """Whether a group is a candidate of every clip: in every view in which it has a group."""
        parts = zip(self.group_of.views(group), self.views, strict=True)
        return all(part is None or part in view.added for part, view in parts)

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
        """Return plain JSON values; :meth:`from_json` gives an equal fuser."""
        return {
            "format": FORMAT,
            "systems": list(self.systems),
            "confident": list(self.confident),
            "families": dict(self.families),
            "settings": asdict(self.settings),
            "grouping": dict(self.grouping),
            "views": [view.to_json() for view in self.views],
            "words": dict(self.words),
            "trained_on": list(self.trained_on),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], grouping: object | None = None) -> Fuser:
        """Undo :meth:`to_json`.

        Args:
            data: What :meth:`to_json` gave.
            grouping: Needed when the fuser was fitted with another than the lexicon or "exact".

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
            families=data["families"],
            settings=FusionSettings(**data["settings"]),
            grouping=here,
            views=tuple(map(View.from_json, data["views"])),
            words=data["words"],
            trained_on=tuple(data["trained_on"]),
            group_of=group_of,
        )


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
