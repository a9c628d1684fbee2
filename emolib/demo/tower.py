"""Teach a vision tower to see: it names what causes a picture, then the language model can say it.

Linear heads over the average of a tower's projected tokens name core, posture, surroundings and
person, and give the numbers the face was drawn from. The heads are thrown away; what they read
stays in the tokens the language model gets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emolib.datasets.demo import describe
from emolib.datasets.demo.expression import envelope
from emolib.demo.pictures import STATES, Pictures, states

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIGNED = (15, 17, 19)  # gaze_x, yaw, roll: learnt without sign, for pictures are mirrored too
_NOT_CLOSE = ("body", "setting")
_WEIGHTS = {"core": 1.5, "body": 1.0, "setting": 1.0, "noun": 0.3, "age": 0.3, "hair": 0.3}
_SHIFT = 6  # pixels


class Heads(nn.Module):
    """Linear readings of a picture's mean token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.states = nn.ModuleDict({k: nn.Linear(width, n) for k, n in STATES.items()})
        self.face = nn.Linear(width, 20)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Read tokens [pictures, tokens, width]."""
        mean = self.norm(tokens.mean(1))
        return {k: head(mean) for k, head in self.states.items()} | {"face": self.face(mean)}


class Targets:
    """What the heads should read of every picture of a rendering."""

    def __init__(self, pictures: Pictures) -> None:
        found = states(pictures.world)
        frames = pictures.world.frames
        self.values = {k: np.repeat(v[:, None], frames, 1) for k, v in found.items()}
        # a strong expression has not yet unfolded in the first frames (strong ones are even)
        core = self.values["core"]
        early = envelope(pictures.times) < describe.FULLY_SHOWN
        core[(core > 0) & (core % 2 == 0) & early] -= 1
        for name in _NOT_CLOSE:
            self.values[name][pictures.close] = -100
        self.face = pictures.faces.copy()
        self.face[..., _SIGNED] = np.abs(self.face[..., _SIGNED])
        self.face[..., 0:2] *= 4  # brows move little

    def at(self, clips: np.ndarray, frames: np.ndarray) -> dict[str, torch.Tensor]:
        """Give the targets of some pictures."""
        chosen = {k: torch.from_numpy(v[clips, frames]) for k, v in self.values.items()}
        return chosen | {"face": torch.from_numpy(self.face[clips, frames])}


def loss(read: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of what every head misses."""
    total = torch.zeros(())
    for name, weight in _WEIGHTS.items():
        total = total + weight * functional.cross_entropy(
            read[name], wanted[name], ignore_index=-100, label_smoothing=0.05
        )
    facing = (wanted["core"] > 0).float()[:, None]
    missed = functional.smooth_l1_loss(read["face"], wanted["face"], reduction="none", beta=0.2)
    return total + 3.0 * (missed * facing).mean()


def sine_places(side: int, width: int) -> torch.Tensor:
    """Give position embeddings [side * side, width] to start from: sines of row and column."""
    rates = 1.0 / 30.0 ** torch.linspace(0, 1, width // 4)
    angles = torch.arange(side)[:, None] * rates * 3.0
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    return 0.3 * torch.cat([rows, columns], 2).reshape(side * side, width)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Turn uint8 [n, size, size, 3] into what the processor gives: float [n, 3, size, size]."""
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def varied(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, mirror and relight pictures a little."""
    n, size = pixels.shape[:2]
    moved = np.empty_like(pixels)
    for i, picture in enumerate(pixels):
        dx, dy = rng.integers(-_SHIFT, _SHIFT + 1, 2)
        rows = np.clip(np.arange(size) + dy, 0, size - 1)
        columns = np.clip(np.arange(size) + dx, 0, size - 1)
        if rng.random() < 0.5:
            columns = columns[::-1]
        moved[i] = picture[rows][:, columns]
    gain = rng.uniform(0.85, 1.15, (n, 1, 1, 1)) * rng.uniform(0.95, 1.05, (n, 1, 1, 3))
    offset = rng.uniform(-12, 12, (n, 1, 1, 1))
    return np.clip(moved * gain + offset, 0, 255).astype(np.uint8)


def picture_loss(
    pictures: Pictures,
    tokens: Callable[[torch.Tensor], torch.Tensor],
    heads: Heads,
    batch: int,
    seed: int,
) -> Callable[[int], torch.Tensor]:
    """Make the loss of a step over random pictures.

    Args:
        pictures: What to learn from.
        tokens: Projected tokens [n, tokens, width] of normalised pictures.
        heads: Their readers.
        batch: Pictures a step.
        seed: Of the draws.
    """
    targets = Targets(pictures)

    def at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step))
        clips = np.sort(rng.integers(0, pictures.world.clips, batch))
        frames = rng.integers(0, pictures.world.frames, batch)
        seen = varied(pictures.pixels[clips, frames], rng)
        return loss(heads(tokens(normalised(seen))), targets.at(clips, frames))

    return at


@torch.no_grad()
def accuracy(
    pictures: Pictures,
    tokens: Callable[[torch.Tensor], torch.Tensor],
    heads: Heads,
    most: int = 300,
) -> dict[str, float]:
    """Measure how often each head is right, over one late frame of each clip; core also close."""
    targets = Targets(pictures)
    clips = np.arange(min(most, pictures.world.clips))
    frames = np.full(len(clips), pictures.world.frames - 2)
    right: dict[str, list[np.ndarray]] = {name: [] for name in STATES}
    for part in np.array_split(np.arange(len(clips)), max(1, len(clips) // 50)):
        read = heads(tokens(normalised(pictures.pixels[clips[part], frames[part]])))
        wanted = targets.at(clips[part], frames[part])
        for name in STATES:
            hit = (read[name].argmax(1) == wanted[name]).numpy().astype(float)
            right[name].append(np.where(wanted[name].numpy() < 0, np.nan, hit))
    joined = {name: np.concatenate(parts) for name, parts in right.items()}
    close = pictures.close[clips]
    found = {name: float(np.nanmean(hits)) for name, hits in joined.items()}
    found["core_close"] = float(np.mean(joined["core"][close])) if close.any() else float("nan")
    return {name: round(value, 3) for name, value in found.items()}
