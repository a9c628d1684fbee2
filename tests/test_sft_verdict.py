"""What notebook 04 compares and says after training, with one seed, several, and epoch ranges."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from emolib import scoring, sft, tables

GOLD = {str(number): ("happy",) for number in range(12)}


def training(epochs: int) -> sft.Trained:
    """One that never ran: a checkpoint an epoch, the last the best."""
    kept = [sft.Checkpoint(e, e, Path(f"{e}"), 3.0 - e / 10) for e in range(1, epochs + 1)]
    history = [{"step": e, "loss": 4.0 - e} for e in range(1, epochs + 1)]
    return sft.Trained("key", kept, history, 1, {}, 1, 116, 1, epochs, 1.0, 0, [])


def score(right: int) -> scoring.Score:
    """A system that is right on so many of the clips."""
    said = {name: ("happy",) if int(name) < right else ("sad",) for name in GOLD}
    return scoring.score(GOLD, said, scoring.open_grouping("exact"), resamples=200)


def moved(**rights: int) -> dict[str, scoring.Comparison]:
    before = score(4)
    return {
        name.replace("_", ", seed "): scoring.compare(score(right), before, resamples=200)
        for name, right in rights.items()
    }


def test_every_seed_is_compared_from_every_side_and_by_every_kind_of_labels():
    pairs = sft.compared({0: training(2), 7: training(2)}, "last", ("all", "audio"), ("llm",))
    ours = ["AffectGPT-SFT, seed 0", "AffectGPT-SFT, seed 7"]
    assert pairs == [
        *[(one, "before training") for one in ours],
        *[(f"{one}, labels by llm", "before training, labels by llm") for one in ours],
        *[(one, f"{one}, audio only") for one in ours],
    ]


def test_of_a_range_every_epoch_is_compared_and_the_last_from_every_side():
    pairs = sft.compared({0: training(4)}, "2-3", ("all", "text"))
    assert pairs == [
        ("AffectGPT-SFT, epoch 2", "before training"),
        ("AffectGPT-SFT, epoch 3", "before training"),
        ("AffectGPT-SFT, epoch 3", "AffectGPT-SFT, epoch 3, text only"),
    ]


@pytest.mark.parametrize(
    ("seeds", "policy", "title", "counted"),
    [
        (1, "best", "Trainings of one recipe", "seeds"),
        (3, "last", "Trainings of one recipe", "seeds"),
        (1, "1-2", "Epochs of one training", "epochs"),
        (3, "1-2", "Epochs of 3 trainings of one recipe", "epochs, all seeds"),
    ],
)
def test_epochs_are_not_called_trainings(seeds, policy, title, counted):
    trained = {seed: training(3) for seed in range(seeds)}
    assert sft.spread_heading(trained, policy) == (title, counted)
    found = {head: score(5) for head in sft.chosen_branches(trained, policy)}
    made = tables.spread_table(title, found, counted)
    assert made["columns"][1] == counted
    assert {row[1] for row in made["rows"]} == {len(found)}


def test_the_verdict_on_one_training():
    told = sft.verdict({0: training(2)}, moved(AffectGPT=12))
    assert told.startswith(
        "Seed 0: training loss 3.000 at first, 2.000 at last; validation 2.900 at the first "
        "checkpoint, 2.800 at best. Avg moved by +0.6667 ("
    )
    assert told.endswith(") on 12 clips: the interval excludes 0.")
    still = sft.verdict({0: training(2)}, moved(AffectGPT=4))
    assert still.endswith("no change of the score is shown.")


def test_the_verdict_on_several_names_the_lowest_and_the_highest():
    trained = {seed: training(2) for seed in range(3)}
    told = sft.verdict(trained, moved(A_0=12, A_1=4, A_2=5))
    assert [f"Seed {seed}: training loss" in told for seed in range(3)] == [True] * 3
    assert "Avg moved by +0.0000 (+0.0000 to +0.0000) with A, seed 1, the lowest, and by" in told
    assert (
        "with A, seed 0, the highest of 3, on 12 clips: the interval excludes 0 in 1 of 3" in told
    )
