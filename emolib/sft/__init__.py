"""AffectGPT's training stage (S5) and its predictions, for notebook 04."""

from emolib.sft.data import (
    Plan,
    Split,
    clip_rows,
    open_pictures,
    picture_rows,
    plan,
    split_dataset,
)
from emolib.sft.faces import shown_clips
from emolib.sft.perspectives import (
    BEFORE,
    chosen_branches,
    describe,
    describe_systems,
    is_affectgpt,
    predict_clips,
    preset_of,
)
from emolib.sft.train import Checkpoint, Trained, train_branches
from emolib.sft.verdict import compared, labelled, spread_heading, verdict

__all__ = [
    "BEFORE",
    "Checkpoint",
    "Plan",
    "Split",
    "Trained",
    "chosen_branches",
    "clip_rows",
    "compared",
    "describe",
    "describe_systems",
    "is_affectgpt",
    "labelled",
    "open_pictures",
    "picture_rows",
    "plan",
    "predict_clips",
    "preset_of",
    "shown_clips",
    "split_dataset",
    "spread_heading",
    "train_branches",
    "verdict",
]
