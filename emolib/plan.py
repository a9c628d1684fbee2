"""The stages of the method, what each reads, and what became of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emolib.errors import RunError

_FIRST = "00_data_check"


@dataclass(frozen=True, slots=True)
class Stage:
    """One place in the method.

    Attributes:
        name: The notebook's name without suffix.
        title: What it does, for the status line.
        feeds: Input parameter -> the earlier stage whose run folder it takes.
        optional: Those of them the stage can do without.
        after: Stages it is not run beside although it does not read their runs: they make what
            both use (the generated clips), or ask a model what it asks, too (then the answers
            are in the ledger).
    """

    name: str
    title: str
    feeds: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    after: tuple[str, ...] = (_FIRST,)

    @property
    def waits_for(self) -> set[str]:
        """All stages that must have ended before this one begins."""
        return {*self.feeds.values(), *self.after}


STAGES = (
    Stage(_FIRST, "what data there is", after=()),
    Stage("01_data_generation", "captions of images by two models"),
    Stage(
        "02_caption_filtering",
        "a judge keeps agreeing captions",
        {"captions": "01_data_generation"},
    ),
    Stage("03_internvl_lora", "zero-shot, LoRA, fine-tuned", {"pairs": "02_caption_filtering"}),
    Stage("04_affectgpt_sft", "AffectGPT's Q-Formers on face, voice and words"),
    Stage(
        "05_face_crop_ablation",
        "whole image against face crop",
        after=(_FIRST, "03_internvl_lora"),
    ),
    Stage("06_discriminative_model", "six-class model, out-of-fold"),
    Stage(
        "07_fusion_analysis",
        "co-judgment and the paper's tables",
        {
            "lora_run": "03_internvl_lora",
            "face_run": "05_face_crop_ablation",
            "discriminative_run": "06_discriminative_model",
            "affectgpt_run": "04_affectgpt_sft",
        },
        optional=("affectgpt_run",),
    ),
    Stage("08_baselines", "other models on the same clips and score"),
)


@dataclass(slots=True)
class Outcome:
    """What became of one stage.

    Attributes:
        stage: Which.
        state: "done", "up to date", "missing" (this version has no such notebook), "not in
            this profile" or "failed".
        folder: The run folder, where there is one.
        seconds: Wall-clock time of this call.
        error: Why it failed.
    """

    stage: Stage
    state: str
    folder: Path | None = None
    seconds: float = 0.0
    error: str = ""


def named(text: str) -> Stage:
    """Give the stage with this number or name.

    Raises:
        RunError: there is none.
    """
    for stage in STAGES:
        if text == stage.name or (text.isdecimal() and int(text) == int(stage.name[:2])):
            return stage
    raise RunError(f"no stage {text!r}: choose from {[s.name for s in STAGES]}")
