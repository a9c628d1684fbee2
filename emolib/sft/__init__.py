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
    chosen_branches,
    describe,
    describe_systems,
    is_affectgpt,
    predict_clips,
    preset_of,
)
from emolib.sft.train import Checkpoint, Trained, train_branches
from emolib.sft.verdict import verdict

__all__ = [
    "Checkpoint",
    "Plan",
    "Split",
    "Trained",
    "chosen_branches",
    "clip_rows",
    "describe",
    "describe_systems",
    "is_affectgpt",
    "open_pictures",
    "picture_rows",
    "plan",
    "predict_clips",
    "preset_of",
    "shown_clips",
    "split_dataset",
    "train_branches",
    "verdict",
]
