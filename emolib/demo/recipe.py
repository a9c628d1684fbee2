"""What a nano model is made from; its card says it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a nano model is made.

    Attributes:
        clips: Training clips of the world's domain "base", split "train".
        variants: So many of them in a row differ in their states alone.
        language_clips: So many of them, with all their frames, the language model sees.
        val_clips: Clips of its split "val" that the card's scores are measured on.
        world_seed: Seed of the world.
        tower_steps: Steps of the vision tower.
        language_steps: Steps of the language model.
        reading_steps: More steps of the language model, mostly about words, where it has a
            phase of its own for them.
        seed: Seed of weights, order and draws.
        target_clips: Training clips of the domain "target", split "train", learned beside those
            of "base"; 0 = the model has never seen that domain.
    """

    clips: int = 8000
    variants: int = 1
    language_clips: int = 3000
    val_clips: int = 300
    world_seed: int = 1
    tower_steps: int = 3000
    language_steps: int = 1200
    reading_steps: int = 500
    seed: int = 0
    target_clips: int = 0

    def tower(self) -> dict[str, int]:
        """Everything a finished tower depends on."""
        own = ("language_clips", "language_steps", "reading_steps")
        return {key: value for key, value in asdict(self).items() if key not in own}
