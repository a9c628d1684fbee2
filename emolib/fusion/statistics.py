"""What training clips teach about groups and systems: counts, smoothed when they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

from emolib.fusion.candidates import Confidences, GroupOf, Labels, Systems
from emolib.labels import normalise

# A rate seen n times is mixed with this many imaginary cases of its base rate.
PRIOR_CASES = 5.0


def logit(p: float) -> float:
    """Log odds, of a probability kept inside [0.001, 0.999]."""
    p = min(max(p, 1e-3), 1 - 1e-3)
    return log(p / (1 - p))


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip as groups.

    Attributes:
        named: System -> groups it named.
        confidence: System -> group -> its confidence, in [0, 1].
        gold: Gold groups; empty when not known.
    """

    named: Mapping[str, frozenset[str]]
    confidence: Mapping[str, Mapping[str, float]]
    gold: frozenset[str] = frozenset()


def read_clip(
    name: str,
    systems: Systems,
    confidences: Confidences,
    group_of: GroupOf,
    gold: Labels | None = None,
) -> Clip:
    """Bring one clip's labels to groups; confidences of synonyms add up, to 1 at most."""
    sure: dict[str, dict[str, float]] = {}
    for system, clips in confidences.items():
        table: Counter[str] = Counter()
        for label, value in clips.get(name, {}).items():
            table[group_of(label)] += value  # type: ignore[assignment]
        sure[system] = {group: min(float(v), 1.0) for group, v in table.items()}
    return Clip(
        {system: group_of.set_of(labels[name]) for system, labels in systems.items()},
        sure,
        group_of.set_of(gold[name]) if gold is not None else frozenset(),
    )


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over training clips.

    Attributes:
        n: Clips.
        gold: Group -> clips whose gold has it.
        named: (system, group) -> clips in which the system named it.
        joint: (system, named group, gold group) -> clips.
        total: System -> groups it named, over all clips.
        hits: System -> how many of them are gold.
        confidence: (system, group) -> sum of its confidence.
    """

    n: int
    gold: Mapping[str, int]
    named: Mapping[tuple[str, str], int]
    joint: Mapping[tuple[str, str, str], int]
    total: Mapping[str, int]
    hits: Mapping[str, int]
    confidence: Mapping[tuple[str, str], float]

    @classmethod
    def count(cls, clips: Collection[Clip]) -> Statistics:
        """Count. Time and memory: named groups times gold groups, summed over clips."""
        gold: Counter[str] = Counter()
        named: Counter[tuple[str, str]] = Counter()
        joint: Counter[tuple[str, str, str]] = Counter()
        total: Counter[str] = Counter()
        hits: Counter[str] = Counter()
        confidence: dict[tuple[str, str], float] = {}
        for clip in clips:
            gold.update(clip.gold)
            for system, groups in clip.named.items():
                total[system] += len(groups)
                hits[system] += len(groups & clip.gold)
                named.update((system, g) for g in groups)
                joint.update((system, g, true) for g in groups for true in clip.gold)
            for system, table in clip.confidence.items():
                for group, value in table.items():
                    confidence[system, group] = confidence.get((system, group), 0.0) + value
        return cls(len(clips), gold, named, joint, total, hits, confidence)

    def frequency(self, group: str) -> float:
        """Share of clips whose gold has the group, smoothed by half a clip."""
        return (self.gold.get(group, 0) + 0.5) / (self.n + 1)

    def precision(self, system: str) -> float:
        """Share of a system's groups that are right, smoothed."""
        return (self.hits.get(system, 0) + 1) / (self.total.get(system, 0) + 2)

    def reliability(self, system: str, group: str) -> float:
        """Log odds that the system is right on this group, over those of all its groups."""
        base = self.precision(system)
        hits = self.joint.get((system, group, group), 0)
        rate = (hits + PRIOR_CASES * base) / (self.named.get((system, group), 0) + PRIOR_CASES)
        return logit(rate) - logit(base)

    def lift(self, group: str, system: str, named: str) -> float:
        """Log of how much likelier ``group`` is when the system named ``named``."""
        base = self.frequency(group)
        joint = self.joint.get((system, named, group), 0)
        rate = (joint + PRIOR_CASES * base) / (self.named.get((system, named), 0) + PRIOR_CASES)
        return log(rate / base)

    def confidence_lift(self, system: str, group: str, value: float) -> float:
        """Log of a confidence over the system's mean confidence in the group; 0 when unseen."""
        mean = self.confidence.get((system, group), 0.0) / max(self.n, 1)
        return log((value + 0.01) / (mean + 0.01)) if mean else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain lists and objects, sorted."""
        return {
            "n": self.n,
            "gold": dict(sorted(self.gold.items())),
            "named": [[*key, n] for key, n in sorted(self.named.items())],
            "joint": [[*key, n] for key, n in sorted(self.joint.items())],
            "total": dict(sorted(self.total.items())),
            "hits": dict(sorted(self.hits.items())),
            "confidence": [[*key, v] for key, v in sorted(self.confidence.items())],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Statistics:
        """Undo :meth:`to_json`."""
        return cls(
            data["n"],
            data["gold"],
            {(s, g): n for s, g, n in data["named"]},
            {(s, h, g): n for s, h, g, n in data["joint"]},
            data["total"],
            data["hits"],
            {(s, g): v for s, g, v in data["confidence"]},
        )


def word_counts(gold: Labels, names: Iterable[str]) -> dict[str, int]:
    """How many clips' gold labels hold each word, normalised."""
    counts = Counter(word for n in names for word in {normalise(x) for x in gold[n]} if word)
    return dict(sorted(counts.items()))
