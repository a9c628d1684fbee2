"""The judgement of one candidate, and the lists that judgements stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


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
        because: Feature -> what it moves the log odds by, from those of an average candidate.
    """

    label: str
    group: str
    sources: tuple[str, ...]
    probability: float
    gain: float
    decision: str
    because: Mapping[str, float]

    def reasons(self, top: int = 3) -> list[tuple[str, float]]:
        """The features that moved the log odds most, largest first."""
        ordered = sorted(self.because.items(), key=lambda item: -abs(item[1]))
        return [(name, move) for name, move in ordered[:top] if move]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "sources": list(self.sources)}


def kept_labels(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, list[str]]:
    """The lists that verdicts stand for."""
    return {
        name: [v.label for v in found if v.decision == "kept"] for name, found in verdicts.items()
    }
