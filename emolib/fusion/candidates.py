"""What several systems say of one clip, with synonyms brought together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from emolib.errors import ScoreError
from emolib.labels import normalise
from emolib.scoring import lexicon
from emolib.scoring.grouping import TableGrouping

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

    Attributes:
        grouping: What says so.
        name: Its name.
        version: Its version.

    Args:
        grouping: A grouping that depends on the label alone and has one view: ``lexicon``,
            ``exact`` or a mapping. (Stored answers know the gold labels, which a fusion must not;
            wheels have five views.)

    Raises:
        ScoreError: a grouping of another kind.
    """

    def __init__(self, grouping: object | None = None) -> None:
        grouping = lexicon.LexiconGrouping() if grouping is None else grouping
        if not isinstance(grouping, TableGrouping) or len(grouping.views(["happy"])) != 1:
            raise ScoreError(
                f"fusion cannot group candidates by {getattr(grouping, 'name', grouping)!r}: give "
                "lexicon, exact or a mapping, whose groups depend on the label alone"
            )
        self.name, self.version = grouping.name, grouping.version
        self.grouping: TableGrouping = grouping
        self._known: dict[str, tuple[str, str]] = {}

    def __call__(self, label: str) -> str:
        """Group of one label, normalised first."""
        return self.word_and_group(label)[1]

    def word_and_group(self, label: str) -> tuple[str, str]:
        """The label normalised, "" when nothing is left of it, and its group."""
        if label not in self._known:
            word = normalise(label)
            group = self.grouping.views([word])[0][0] if word else None
            self._known[label] = word, f"={word}" if group is None else group
        return self._known[label]

    def set_of(self, labels: Iterable[str]) -> frozenset[str]:
        """Groups of several labels."""
        both = map(self.word_and_group, labels)
        return frozenset(group for word, group in both if word)


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
            if word:
                words = named.setdefault(group, {})
                words[system] = (*words.get(system, ()), word)
    return {group: Candidate(group, words) for group, words in named.items()}
