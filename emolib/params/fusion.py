"""Parameters of co-judgment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from emolib.params.schemas import Schema

RUNS = ("zero_shot", "face", "fine_tuned", "discriminative", "affectgpt")
TEXT = "text"


def check_systems(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of systems, if each can be one.

    Raises:
        ValueError: a name is neither a run's, nor "text", nor that of published outputs.
    """
    for name in names:
        if name not in (*RUNS, TEXT) and "/" not in name and "*" not in name:
            raise ValueError(
                f"no system {name!r}: choose from {[*RUNS, TEXT]}, or name published outputs, "
                'e.g. "SALMONN/subtitle", "*/no_subtitle" or "*"'
            )
    return names


class FusionParams(Schema):
    """How systems' lists become one; see ``docs/fusion.md``.

    Attributes:
        systems: What is fused, by every rule alike. The paper splices "zero_shot", "fine_tuned"
            and "discriminative" (here: out-of-fold); "face" and "affectgpt" may join. Published
            outputs are named MODEL/VARIANT, where * stands for any text; the outputs of one model
            are then one source. "text" is the text model of ``text_data``.
        objective: Expected score our fusion maximises: "avg" (official), "f1" (of mean accuracy
            and mean recall, as tables show it), or "clip_f1" (mean over clips).
        precision_weight: Weight of accuracy in "avg"; one half is the official Avg.
        cap: Longest list; 0 = no limit.
        price: Expected score that a label must add to be kept.
        add: So many of the groups most frequent in training gold are candidates of every clip,
            named or not; 0 = only what a system named.
        similar: Also learn from the whole pattern of votes on a clip; for many systems.
        outer: Outer folds: each clip is fused by a model that was fitted on the other folds.
            Fewer are used where there are fewer independent clips.
        inner: Inner folds, on which everything is chosen.
    """

    systems: tuple[str, ...] = ("zero_shot", "fine_tuned", "discriminative")
    objective: Literal["avg", "f1", "clip_f1"] = "avg"
    precision_weight: float = Field(default=0.5, ge=0, le=1)
    cap: int = Field(default=0, ge=0)
    price: float = Field(default=0.0, ge=0, lt=1)
    add: int = Field(default=0, ge=0)
    similar: bool = False
    outer: int = Field(default=10, ge=2)
    inner: int = Field(default=5, ge=2)

    _known = field_validator("systems")(check_systems)


class CurveParams(Schema):
    """How calibrated fusion depends on the number of systems and of labelled clips.

    Attributes:
        clips: Numbers of labelled clips it is fitted on; more than there are = all.
        sources: Numbers of sources that are fused: the models of published outputs, or systems.
        repeats: Random choices of clips or sources for each number.
    """

    clips: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    repeats: int = Field(default=5, ge=1)

    @field_validator("clips", "sources")
    @classmethod
    def _counts(cls, numbers: tuple[int, ...]) -> tuple[int, ...]:
        if any(number < 1 for number in numbers):
            raise ValueError(f"{list(numbers)}: numbers of clips or sources are 1 or more")
        return numbers
