"""One sentence on what training did, for the notebook and the report."""

from __future__ import annotations

from collections.abc import Mapping

from emolib.scoring import Comparison
from emolib.sft.train import Trained


def verdict(trained: Mapping[int, Trained], moved: Comparison) -> str:
    """Say whether the loss fell and whether the score moved.

    Args:
        trained: Trainings by seed.
        moved: After training minus before, on the test clips.
    """
    said = []
    for seed, one in trained.items():
        told = one.to_json()
        text = f"seed {seed}: training loss {told['loss_at_first']:.3f} at first"
        text += f", {told['loss_at_last']:.3f} at last"
        held = [c.eval_loss for c in one.checkpoints if c.eval_loss is not None]
        if held:
            text += f"; validation {held[0]:.3f} at the first checkpoint, {min(held):.3f} at best"
        said.append(text)
    low, high = moved.ci95["avg"]
    gap = f"Avg moved by {moved.difference['avg']:+.4f} ({low:+.4f} to {high:+.4f})"
    shown = "the interval excludes 0" if low > 0 or high < 0 else "no change of the score is shown"
    return f"{'. '.join(said).capitalize()}. {gap} on {moved.n} clips: {shown}."
