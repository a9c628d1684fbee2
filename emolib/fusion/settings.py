"""What a fusion is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from emolib.errors import ScoreError
from emolib.fusion.expected import Objective


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How a :class:`Fuser` decides.

    Attributes:
        objective: "avg" maximises the expected weighted mean of accuracy and recall; "f1" the F1
            of mean accuracy and mean recall, which the scoring library reports, by a weight
            found on inner folds; "clip_f1" the mean of the clips' expected F1.
        precision_weight: Weight of accuracy in "avg", in [0, 1]; one half is the official Avg.
        cap: Longest list; None = no limit.
        price: Expected score that a label must add to be kept, in [0, 1): shorter lists where
            further labels add next to nothing.
        add: So many of the groups most frequent in training gold are candidates of every clip,
            named or not; 0 = only what a system named.
        similar: Also learn from the whole pattern of votes on a clip
            (:class:`~emolib.fusion.ridge.Ridge`); worth its time with many systems. Memory: the
            square of the training clips.
        folds: Inner folds, from which counts, penalty and calibration are taken.
        seed: Seed of the inner folds.
    """

    objective: Objective = "avg"
    precision_weight: float = 0.5
    cap: int | None = None
    price: float = 0.0
    add: int = 0
    similar: bool = False
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        good = self.objective in ("avg", "f1", "clip_f1") and 0 <= self.precision_weight <= 1
        good = good and 0 <= self.price < 1
        if not good or self.add < 0 or (self.cap is not None and self.cap < 1):
            raise ScoreError(
                f"{self}: objective is avg, f1 or clip_f1, precision_weight in [0, 1], cap at "
                "least 1 or None, price in [0, 1), add at least 0"
            )
