"""Training on both domains of the world in turn, for captioners that know more than the student.

In the paper captions come from larger models than the one that is trained on them. Here they come
from models that learned from both domains, "base" and "target", but only from clips of the split
"train" and of a world seed that no data set of the demo has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from emolib.demo import language, loop, tower
from emolib.demo.language import Speaker
from emolib.demo.pictures import Pictures, first, worlds
from emolib.demo.recipe import Recipe

SHARES = {"picture": (1.0, 12)}

Tokens = Callable[[np.ndarray], torch.Tensor]
Worlds = dict[str, tuple[Pictures, Pictures]]  # domain -> what is learned from, what is asked


def both(recipe: Recipe, cache: Path) -> Worlds:
    """Render both domains, or "base" alone where the recipe has no clips of "target"."""
    names = ("base", "target") if recipe.target_clips else ("base",)
    return {name: worlds(recipe, cache, domain=name) for name in names}


def in_turn(
    losses: Sequence[Callable[[int], torch.Tensor]], done: int = 0
) -> Callable[[int], torch.Tensor]:
    """Give the loss that asks one after the other, a step each, ``done`` steps behind it."""
    return lambda step: losses[step % len(losses)](done + step)


def named(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Put the domain before the names of scores."""
    return {f"{of}: {name}": score for of, found in scores.items() for name, score in found.items()}


def train_tower(
    modules: dict[str, torch.nn.Module],
    tokens: Tokens,
    width: int,
    made: Worlds,
    recipe: Recipe,
    states: Path,
    rounds: int = 1,
) -> tuple[list[float], dict[str, float]]:
    """Train a tower with its projector.

    Args:
        modules: Both, by name.
        tokens: Projected tokens of uint8 pictures.
        width: Of a token.
        made: What is learned from and asked.
        recipe: Steps and seed.
        states: Where checkpoints are kept.
        rounds: The steps are done in so many rounds; the rate rises and falls in each.

    Returns:
        Losses and validation accuracies.
    """
    heads = tower.Heads(width)

    def check() -> dict[str, float]:
        return named({of: tower.accuracy(val, tokens, heads) for of, (_, val) in made.items()})

    losses = [
        tower.picture_loss(pictures, tokens, heads, batch=16, seed=recipe.seed)
        for pictures, _ in made.values()
    ]
    went: list[float] = []
    parts = modules | {"heads": heads}
    for number in range(1, rounds + 1):
        name = "tower" if number == 1 else f"tower-{number}"
        phase = loop.Phase(name, recipe.tower_steps // rounds, rate=2e-3)
        loss_at = in_turn(losses, len(went))
        went += loop.train(parts, loss_at, phase, states, check=lambda: str(check()))
    return went, check()


def train_captions(
    voice: Speaker, tokens: Tokens, style: int, made: Worlds, recipe: Recipe, states: Path
) -> tuple[list[float], dict[str, float]]:
    """Train a language model to write captions over a finished tower; losses and agreement."""
    steps, seed, clips = recipe.language_steps, recipe.seed, recipe.language_clips
    losses, tests = [], {}
    for of, (pictures, val) in made.items():
        some = first(pictures, clips)
        known = language.kept(states / of, some, tokens, seed)
        losses.append(language.answer_loss(voice, known, language.kinds(some, style, SHARES), seed))
        tests[of] = (language.seen(val, tokens, None), language.kinds(val, style, SHARES))

    def check(count: int) -> dict[str, float]:
        return named({o: language.agreement(voice, *t, count, seed) for o, t in tests.items()})

    phase = loop.Phase(f"language-{steps}-{clips}", steps, rate=2e-3, decay=0.02, save=100)
    went = loop.train(
        {"language": voice.language},
        in_turn(losses),
        phase,
        states,
        check=lambda: str(check(24)),
    )
    return went, check(200)
