"""What several systems say of one clip, with synonyms brought together."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from emolib.errors import ScoreError
from emolib.hashing import key_of
from emolib.labels import normalise
from emolib.scoring import lexicon
from emolib.scoring.grouping import MappingGrouping, TableGrouping

Labels = Mapping[str, Sequence[str]]  # clip -> labels
Systems = Mapping[str, Labels]  # system -> clip -> labels
Confidences = Mapping[str, Mapping[str, Mapping[str, float]]]  # system -> clip -> label -> [0, 1]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One group of labels that at least one system named.

    Attributes:
        group: The group's name.
        named: System -> its labels of this group, normalised, in its order.
    """

    group: str
    named: Mapping[str, tuple[str, ...]]

    @property
    def sources(self) -> tuple[str, ...]:
        """Systems that named it."""
        return tuple(self.named)

    def label(self, frequency: Mapping[str, int] | None = None) -> str:
        """The word that speaks for the group.

        Most systems first, then the word used most often by annotators (``frequency``), then
        the first said.
        """
        words = [word for words in self.named.values() for word in dict.fromkeys(words)]
        often = frequency or {}
        return max(dict.fromkeys(words), key=lambda w: (words.count(w), often.get(w, 0)))


class GroupOf:
    """Label -> group, looked up once.

    A grouping has one view of the labels or several (the five emotion wheels). Labels are one
    candidate when they are in the same group in *every* view, and are dropped when they are
    outside the tables in all of them, as the official wheel scores do. A label's group is then
    the combination of its groups, and it is correct to the extent of the views in which it is.

    Attributes:
        grouping: The groupings, in the order given.
        name: Their names.
        version: Their versions.
        weights: float64 [views], the share of each view in a score; sums to 1. Every grouping
            counts the same, and so does every view of a grouping.

    Args:
        grouping: The lexicon (default); any grouping that depends on the label alone ("exact",
            "lexicon", "ew2025", "ew2026"), a dictionary label -> group, or several of these.

    Raises:
        ScoreError: a grouping of another kind. Stored or model-made groups depend on the clip
            and contain its gold labels, which a fusion must not know.
    """

    def __init__(self, grouping: object | None = None) -> None:
        several = isinstance(grouping, Sequence) and not isinstance(grouping, str)
        given: Sequence[object] = grouping if several else [grouping]  # type: ignore[assignment]
        self.grouping = tuple(_table(one) for one in given)
        if not self.grouping:
            raise ScoreError("fusion needs at least one grouping")
        self.name = " + ".join(one.name for one in self.grouping)
        self.version = " + ".join(one.version for one in self.grouping)
        counts = [len(one.views(["happy"])) for one in self.grouping]
        self.weights = np.array([1 / (n * len(counts)) for n in counts for _ in range(n)])
        self._known: dict[str, tuple[str, str | None]] = {}
        self._views: dict[str, tuple[str | None, ...]] = {}

    def __call__(self, label: str) -> str | None:
        """Return the group of one label, None when it has none."""
        return self.word_and_group(label)[1]

    def word_and_group(self, label: str) -> tuple[str, str | None]:
        """Return the label normalized, "" when nothing is left of it, and its group."""
        if label not in self._known:
            word = normalise(label)
            views = [v[0] for one in self.grouping for v in one.views([word])] if word else []
            group = None
            if any(view is not None for view in views):
                shown = ["-" if view is None else view for view in views]
                group = shown[0] if len(shown) == 1 else " / ".join(shown)
                self._views.setdefault(group, tuple(views))
            self._known[label] = word, group
        return self._known[label]

    def views(self, group: str) -> tuple[str | None, ...]:
        """Return the group of every view, of a group that was returned before."""
        return self._views[group]

    def set_of(self, labels: Iterable[str]) -> frozenset[str]:
        """Return the groups of several labels."""
        return frozenset(group for label in labels if (group := self(label)) is not None)

    def sets_of(self, labels: Iterable[str]) -> tuple[frozenset[str], ...]:
        """Return the groups of several labels, view by view."""
        rows = [self._views[group] for group in self.set_of(labels)]
        return tuple(
            frozenset(group for row in rows if (group := row[v]) is not None)
            for v in range(len(self.weights))
        )

    def correct(self, groups: Iterable[str], gold: Iterable[str]) -> float:
        """Return how many of some groups are correct: with one view, those also in gold.

        Args:
            groups: Groups that were returned before.
            gold: Gold labels.
        """
        true = self.sets_of(gold)
        views = [self._views[group] for group in groups]
        hits = [sum(row[v] in true[v] for row in views) for v in range(len(true))]
        return hits[0] if len(hits) == 1 else float(self.weights @ np.array(hits, float))


def _table(grouping: object | None) -> TableGrouping:
    """Return one grouping that depends on the label alone."""
    if grouping is None:
        return lexicon.LexiconGrouping()
    if isinstance(grouping, Mapping):
        return MappingGrouping(grouping, version=key_of(groups=dict(grouping))[:12])
    if not isinstance(grouping, TableGrouping):
        kind = getattr(grouping, "name", None) or reprlib.repr(grouping)
        raise ScoreError(
            f"fusion cannot group candidates by {kind!r}: give lexicon, exact, a wheel or a "
            "mapping, whose groups depend on the label alone"
        )
    return grouping


@lru_cache(maxsize=4096)
def family(label: str) -> str | None:
    """Coarser kin of a label ("joy" for both "amused" and "satisfied"), None when unknown."""
    found = lexicon.find(label)
    if found.rule == "unknown":
        return None
    return lexicon.table()[found.via[0]].family


def clip_names(systems: Sequence[Labels]) -> list[str]:
    """The clips all systems cover, in the first one's order.

    Raises:
        ScoreError: no system at all, or they do not cover the same clips.
    """
    if not systems:
        raise ScoreError("fusion needs the predictions of at least one system")
    names = list(systems[0])
    for number, system in enumerate(systems[1:], start=2):
        if odd := sorted(set(names) ^ set(system)):
            raise ScoreError(
                f"system {number} and system 1 differ in {len(odd)} clips (first: {odd[0]!r}): "
                "fuse systems over the same clips"
            )
    return names


def candidates(clip: str, systems: Systems, group_of: GroupOf) -> dict[str, Candidate]:
    """Group -> candidate of one clip, in order of first appearance. Linear in its labels."""
    named: dict[str, dict[str, tuple[str, ...]]] = {}
    for system, labels in systems.items():
        for label in labels[clip]:
            word, group = group_of.word_and_group(label)
            if group is not None:
                words = named.setdefault(group, {})
                words[system] = (*words.get(system, ()), word)
    return {group: Candidate(group, words) for group, words in named.items()}
