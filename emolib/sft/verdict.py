"""What is compared after training, and one sentence on what training did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emolib.params.affectgpt import Perspective
from emolib.scoring import Comparison
from emolib.sft.perspectives import BEFORE, branches_by_seed, chosen_branches
from emolib.sft.train import Trained


def compared(
    trained: Mapping[int, Trained],
    policy: str,
    views: Sequence[Perspective] = (),
    summarisers: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """Pairs of systems whose difference says what training and what each side brings.

    Args:
        trained: Trainings by seed.
        policy: Which of their checkpoints are tested.
        views: Perspectives asked of them.
        summarisers: LLMs that turned descriptions into labels.

    Returns:
        Every tested checkpoint and the model before training, first with labels found without
        an LLM, then with those of each LLM; then, for the last tested checkpoint of every seed,
        all sides together and one side only.
    """
    heads = list(chosen_branches(trained, policy))
    pairs = [(head, BEFORE) for head in heads]
    for name in summarisers:
        pairs += [(labelled(head, name), labelled(BEFORE, name)) for head in heads]
    for found in branches_by_seed(trained, policy).values():
        last = list(found)[-1]
        pairs += [(last, f"{last}, {side} only") for side in views if side != "all"]
    return pairs


def labelled(system: str, summariser: str) -> str:
    """Name of a system whose labels an LLM found."""
    return f"{system}, labels by {summariser}"


def spread_heading(trained: Mapping[int, Trained], policy: str) -> tuple[str, str]:
    """Title of the table of the tested checkpoints' spread, and what it counts.

    Epochs of one training are no trainings: a range of them is not called so.
    """
    tested = {seed: len(found) for seed, found in branches_by_seed(trained, policy).items()}
    if all(count == 1 for count in tested.values()):
        return "Trainings of one recipe", "seeds"
    if len(tested) == 1:
        return "Epochs of one training", "epochs"
    return f"Epochs of {len(tested)} trainings of one recipe", "epochs, all seeds"


def verdict(trained: Mapping[int, Trained], moved: Mapping[str, Comparison]) -> str:
    """Say whether the loss fell and whether the score moved.

    Args:
        trained: Trainings by seed.
        moved: System -> after training minus before, on the test clips. Of several systems the
            one that gained least and the one that gained most are told by name.
    """
    said = []
    for seed, one in trained.items():
        told = one.to_json()
        text = f"seed {seed}: training loss {told['loss_at_first']:.3f} at first"
        text += f", {told['loss_at_last']:.3f} at last"
        held = [c.eval_loss for c in one.checkpoints if c.eval_loss is not None]
        if held:
            text += f"; validation {held[0]:.3f} at the first checkpoint, {min(held):.3f} at best"
        said.append(text.capitalize())
    order = sorted(moved, key=lambda name: moved[name].difference["avg"])
    clips = moved[order[0]].n
    if len(order) == 1:
        gap = f"Avg moved by {_gap(moved[order[0]])} on {clips} clips"
        clear = "the interval excludes 0" if _is_clear(moved[order[0]]) else _UNCLEAR
    else:
        low, high = order[0], order[-1]
        gap = f"Avg moved by {_gap(moved[low])} with {low}, the lowest"
        gap += f", and by {_gap(moved[high])} with {high}, the highest of {len(order)}"
        gap += f", on {clips} clips"
        number = sum(map(_is_clear, moved.values()))
        clear = f"the interval excludes 0 in {number} of {len(order)}" if number else _UNCLEAR
    return f"{'. '.join(said)}. {gap}: {clear}."


_UNCLEAR = "no change of the score is shown"


def _gap(found: Comparison) -> str:
    low, high = found.ci95["avg"]
    return f"{found.difference['avg']:+.4f} ({low:+.4f} to {high:+.4f})"


def _is_clear(found: Comparison) -> bool:
    low, high = found.ci95["avg"]
    return low > 0 or high < 0
