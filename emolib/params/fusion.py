"""Parameters of co-judgment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emolib.params.schemas import Schema

System = Literal["zero_shot", "face", "fine_tuned", "discriminative", "affectgpt"]


class FusionParams(Schema):
    """How systems' lists become one; see ``docs/fusion.md``.

    Attributes:
        systems: What is fused, by every rule alike. The paper splices "zero_shot", "fine_tuned"
            and "discriminative" (here: out of fold); "face" and "affectgpt" may join.
        objective: Expected score our fusion maximises: "avg" (official), "f1" (of mean accuracy
            and mean recall, as tables show it), or "clip_f1" (mean over clips).
        precision_weight: Weight of accuracy in "avg"; one half is the official Avg.
        cap: Longest list; 0 = no limit.
        add: So many of the groups most frequent in training gold are candidates of every clip,
            named or not; 0 = only what a system named.
        outer: Outer folds: each clip is fused by a model that was fitted on the other folds.
            Fewer are used where there are fewer independent clips.
        inner: Inner folds, on which everything is chosen.
    """

    systems: tuple[System, ...] = ("zero_shot", "fine_tuned", "discriminative")
    objective: Literal["avg", "f1", "clip_f1"] = "avg"
    precision_weight: float = Field(default=0.5, ge=0, le=1)
    cap: int = Field(default=0, ge=0)
    add: int = Field(default=0, ge=0)
    outer: int = Field(default=10, ge=2)
    inner: int = Field(default=5, ge=2)
