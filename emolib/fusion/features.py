"""What the model looks at in a candidate: a dozen numbers with names."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from emolib.fusion.candidates import family
from emolib.fusion.statistics import Clip, Statistics, logit


def feature_names(systems: Sequence[str], confident: Sequence[str]) -> tuple[str, ...]:
    """Names of :func:`features`, in order.

    ==================  ============================================================
    named: SYSTEM       1 when the system named the group
    agreement           systems that named it beyond the first
    list length         minus the log length of the lists that hold it, mean
    frequency           log odds of the group in training gold
    reliability         log odds that these systems are right on this very group, mean
    co-occurrence       log lift of the group given everything else that was named, mean
    kin                 share of the other systems that named a group of its family
    confidence: SYSTEM  log of the system's confidence in the group over its mean
    ==================  ============================================================
    """
    shared = ("agreement", "list length", "frequency", "reliability", "co-occurrence", "kin")
    return (
        *(f"named: {s}" for s in systems),
        *shared,
        *(f"confidence: {s}" for s in confident),
    )


def features(
    clip: Clip,
    group: str,
    stats: Statistics,
    systems: Sequence[str],
    confident: Sequence[str],
) -> np.ndarray:
    """Describe one candidate group of one clip.

    Args:
        clip: The clip; its gold is not looked at.
        group: The candidate.
        stats: Counts over other clips.
        systems: Their order.
        confident: Systems with confidences, in order.

    Returns:
        float64 [features]. Cost: linear in the groups named.
    """
    by = [s for s in systems if group in clip.named[s]]
    others = [s for s in systems if group not in clip.named[s]]
    around = [(s, h) for s in systems for h in sorted(clip.named[s]) if h != group]
    kin = family(group.removeprefix("="))
    related = sum(
        kin is not None and any(family(h.removeprefix("=")) == kin for h in clip.named[s])
        for s in others
    )
    sure = [clip.confidence.get(s, {}).get(group) for s in confident]
    return np.array(
        [
            *(float(s in by) for s in systems),
            max(len(by) - 1, 0),
            -_mean([log(len(clip.named[s])) for s in by]),
            logit(stats.frequency(group)),
            _mean([stats.reliability(s, group) for s in by]),
            _mean([stats.lift(group, s, h) for s, h in around]),
            related / len(others) if others else 0.0,
            *(
                0.0 if value is None else stats.confidence_lift(s, group, value)
                for s, value in zip(confident, sure, strict=True)
            ),
        ]
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
