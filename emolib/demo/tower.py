"""Teach a vision tower to see: it names what causes a picture, then the language model can say it.

Linear heads over the average of a tower's projected tokens name core, posture, surroundings and
person, and give the numbers the face was drawn from. The heads are thrown away; what they read
stays in the tokens the language model gets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emolib.datasets.demo import describe, render
from emolib.datasets.demo.expression import envelope
from emolib.datasets.demo.spec import ClipSpec
from emolib.demo.pictures import STATES, Pictures, states

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FACE = 20  # numbers a face is drawn from
ARMS = 11  # where elbows and hands are, and the head with its size
IGNORED = -100
_SIGNED = (15, 17, 19)  # gaze_x, yaw, roll: to which side matters not
_NOT_CLOSE = ("body", "setting")
_WEIGHTS = {"core": 2.0, "body": 1.5, "setting": 0.7, "noun": 0.2, "age": 0.2, "hair": 0.2}
_FACE_WEIGHT, _ARMS_WEIGHT = 8.0, 4.0
_SHIFT = 4  # pixels
_GRID = 8  # cells of a side in which the head is looked for


class Heads(nn.Module):
    """Linear readings: of a picture's mean token, and of every token by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.states = nn.ModuleDict({k: nn.Linear(width, n) for k, n in STATES.items()})
        self.states["face"] = nn.Linear(width, FACE)
        self.states["arms"] = nn.Linear(width, ARMS)
        self.near = nn.ModuleDict({k: nn.Linear(width, n) for k, n in STATES.items()})
        self.near["face"] = nn.Linear(width, FACE)
        self.near["arms"] = nn.Linear(width, ARMS)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Read tokens [pictures, tokens, width]: name -> [pictures, classes]."""
        mean = self.norm(tokens.mean(1))
        return {k: head(mean) for k, head in self.states.items()}

    def each(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Read every token: name -> [pictures, tokens, classes]."""
        normed = self.norm(tokens)
        return {k: head(normed) for k, head in self.near.items()}


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
            self.values[name][pictures.close] = IGNORED
        self.face = pictures.faces.copy()
        self.face[..., _SIGNED] = np.abs(self.face[..., _SIGNED])
        self.face = _standard(self.face, self.values["core"] > 0)
        self.arms = np.stack([_arms(pictures.world.spec(i)) for i in range(pictures.world.clips)])
        self.arms = _standard(self.arms, ~pictures.close)
        self.far = (~pictures.close).astype(np.float32)
        self.heads = np.stack([_head(pictures, i) for i in range(pictures.world.clips)])

    def at(self, clips: np.ndarray, frames: np.ndarray) -> dict[str, torch.Tensor]:
        """Give the targets of some pictures."""
        chosen = {k: torch.from_numpy(v[clips, frames]) for k, v in self.values.items()}
        for name in ("heads", "arms", "far"):
            chosen[name] = torch.from_numpy(getattr(self, name)[clips])
        return chosen | {"face": torch.from_numpy(self.face[clips, frames])}


def _standard(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Bring the last axis to mean 0 and deviation 1 among the chosen rows."""
    chosen = values[among]
    return ((values - chosen.mean(0)) / (chosen.std(0) + 1e-3)).clip(-4, 4).astype(np.float32)


def _arms(clip: ClipSpec) -> np.ndarray:
    return np.array([*render.arm_places(clip).flatten(), *render.head_place(clip)])


def _head(pictures: Pictures, index: int) -> np.ndarray:
    """Share of the head in each cell of a grid over a clip's pictures: float32 [side, side]."""
    if pictures.close[index]:
        return np.full((_GRID, _GRID), 1 / _GRID**2, np.float32)
    x, y, half = render.head_place(pictures.world.spec(index))
    cell = render.SIZE / _GRID
    edges = np.arange(_GRID + 1) * cell

    def overlap(middle: float, reach: float) -> np.ndarray:
        low, high = np.maximum(edges[:-1], middle - reach), np.minimum(edges[1:], middle + reach)
        return np.clip(high - low, 0, None)

    share = np.outer(overlap(y, half), overlap(x, 0.8 * half))
    return (share / share.sum()).astype(np.float32)


def loss(heads: Heads, tokens: torch.Tensor, wanted: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of what every head misses, reading the mean token and the tokens one by one.

    Tokens are asked where the answer is to be seen: face and person where the head is, posture
    and surroundings everywhere. Without this a small transformer takes ten times as long to
    find out where to look.
    """
    n, side = len(tokens), round(tokens.shape[1] ** 0.5)
    cells = functional.interpolate(wanted["heads"][:, None], size=side, mode="area").flatten(1)
    cells = cells / cells.sum(1, keepdim=True)
    everywhere = torch.full_like(cells, 1 / cells.shape[1])
    read, near = heads(tokens), heads.each(tokens)
    total = torch.zeros(())
    for name, weight in _WEIGHTS.items():
        kind: dict[str, Any] = {"ignore_index": IGNORED, "label_smoothing": 0.05}
        right = wanted[name]
        total = total + weight * functional.cross_entropy(read[name], right, **kind)
        many = right[:, None].expand(-1, cells.shape[1]).flatten()
        each = functional.cross_entropy(near[name].flatten(0, 1), many, reduction="none", **kind)
        where = everywhere if name in _NOT_CLOSE else cells
        total = total + weight * (each.view(n, -1) * where).sum(1).mean()
    facing = (wanted["core"] > 0).float()
    for name, where, rows, weight in (
        ("face", cells, facing, _FACE_WEIGHT),
        ("arms", everywhere, wanted["far"], _ARMS_WEIGHT),
    ):
        right = wanted[name]
        mean = functional.smooth_l1_loss(read[name], right, reduction="none").mean(1)
        many = right[:, None].expand_as(near[name])
        each = functional.smooth_l1_loss(near[name], many, reduction="none").mean(2)
        total = total + weight * ((mean + (each * where).sum(1)) * rows).mean()
    return total


@torch.no_grad()
def start_patches(
    weight: torch.Tensor, bias: torch.Tensor, pictures: Pictures, size: int, seed: int
) -> None:
    """Start a patch embedding from the principal components of patches, each of unit variance.

    Faces are told by faint detail; a random projection hands on little but brightness. The last
    quarter of the width stays free for the place (:func:`local_attention`).

    Args:
        weight: [width, 3, patch, patch], set in place; likewise ``bias`` [width].
        bias: See ``weight``.
        pictures: Where patches are taken from.
        size: Side of a picture as the tower sees it, pixels.
        seed: Of which ones.
    """
    width, patch = weight.shape[0], weight.shape[-1]
    rng = np.random.default_rng(seed)
    clips = np.sort(rng.choice(pictures.world.clips, min(300, pictures.world.clips), False))
    seen = normalised(pictures.pixels[clips, rng.integers(pictures.world.frames)], size)
    columns = functional.unfold(seen, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()
    middle = columns.mean(0)
    values, vectors = torch.linalg.eigh((columns - middle).T.cov())
    kept = 3 * width // 4
    order = values.argsort(descending=True)[:kept]
    scaled = vectors[:, order] / (values[order] + 1e-2 * values[order[kept // 2]]).sqrt()
    weight.zero_()
    bias.zero_()
    weight[:kept] = scaled.T.reshape(kept, 3, patch, patch).float()
    bias[:kept] = -(scaled.T @ middle).float()


@torch.no_grad()
def local_attention(query: torch.Tensor, key: torch.Tensor, heads: int, spread: float) -> None:
    """Start an attention that looks at neighbours, one direction a head, as a convolution does.

    Args:
        query: Weight [width, width], set in place; likewise ``key``. Reads the place from the
            last quarter of the width, as :func:`places` wrote it.
        key: See ``query``.
        heads: Of the attention; four directions in turn.
        spread: How strictly: logit lost a patch of distance.
    """
    width = len(query)
    size, last = width // heads, width // 4
    scale = (spread * size**0.5 / 3.6) ** 0.5
    pairs = last // 4  # sine and cosine of every rate, for row and column
    rates = torch.linspace(0.3, 2.0, pairs)
    query.zero_()
    key.zero_()
    for head in range(heads):
        dy, dx = ((0, -1), (0, 1), (-1, 0), (1, 0))[head % 4]
        rows = slice(head * size, head * size + last)
        key[rows, -last:] = scale * torch.eye(last)
        turn = torch.zeros(last, last)
        for axis, offset in enumerate((dy, dx)):
            for k in range(pairs):
                s, c = axis * 2 * pairs + k, axis * 2 * pairs + pairs + k
                sin, cos = torch.sin(rates[k] * offset), torch.cos(rates[k] * offset)
                turn[s, s], turn[s, c], turn[c, s], turn[c, c] = cos, sin, -sin, cos
        query[rows, -last:] = scale * turn


def places(side: int, width: int) -> torch.Tensor:
    """Give position embeddings [side * side, width]: sines in the last quarter, else zero."""
    pairs = width // 16
    rates = torch.linspace(0.3, 2.0, pairs)
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    found = torch.zeros(side * side, width)
    found[:, -width // 4 :] = torch.cat([rows, columns], 2).reshape(side * side, -1)
    return found


def normalised(pixels: np.ndarray, size: int) -> torch.Tensor:
    """Turn uint8 [n, side, side, 3] into what the processor gives: float [n, 3, size, size]."""
    if pixels.shape[1] != size:
        small = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in pixels]
        pixels = np.stack(small)
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def varied(
    pixels: np.ndarray, rng: np.random.Generator, alike: int = 1, shift: int = _SHIFT
) -> np.ndarray:
    """Shift and relight pictures a little, ``alike`` pictures in a row in the same way."""
    n, size = pixels.shape[:2]
    groups = n // alike
    moved = np.empty_like(pixels)
    shifts = np.repeat(rng.integers(-shift, shift + 1, (groups, 2)), alike, 0)
    for i, (picture, (dx, dy)) in enumerate(zip(pixels, shifts, strict=True)):
        rows = np.clip(np.arange(size) + dy, 0, size - 1)
        columns = np.clip(np.arange(size) + dx, 0, size - 1)
        moved[i] = picture[rows][:, columns]
    gain = rng.uniform(0.85, 1.15, (groups, 1, 1, 1)) * rng.uniform(0.95, 1.05, (groups, 1, 1, 3))
    offset = rng.uniform(-12, 12, (groups, 1, 1, 1))
    light = moved * np.repeat(gain, alike, 0) + np.repeat(offset, alike, 0)
    return np.clip(light, 0, 255).astype(np.uint8)


def picture_loss(
    pictures: Pictures,
    tokens: Callable[[np.ndarray], torch.Tensor],
    heads: Heads,
    batch: int,
    seed: int,
) -> Callable[[int], torch.Tensor]:
    """Make the loss of a step over random pictures.

    Args:
        pictures: What to learn from.
        tokens: Projected tokens [n, tokens, width] of uint8 pictures.
        heads: Their readers.
        batch: Pictures a step.
        seed: Of the draws.
    """
    wanted = cache(lambda: Targets(pictures))  # half a minute, not needed by a finished tower

    def at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step))
        # all variants of a scene together: what differs is what the states cause
        of = pictures.world
        scenes = rng.integers(0, of.clips // of.variants, max(1, batch // of.variants))
        clips = (scenes[:, None] * of.variants + np.arange(of.variants)).flatten()
        frames = np.repeat(rng.integers(0, of.frames, len(scenes)), of.variants)
        seen = varied(pictures.pixels[clips, frames], rng, of.variants)
        return loss(heads, tokens(seen), wanted().at(clips, frames))

    return at


@torch.no_grad()
def accuracy(
    pictures: Pictures,
    tokens: Callable[[np.ndarray], torch.Tensor],
    heads: Heads,
    most: int = 300,
) -> dict[str, float]:
    """Measure how often each head is right, over one late frame of each clip; core also close."""
    targets = Targets(pictures)
    clips = np.arange(min(most, pictures.world.clips))
    frames = np.full(len(clips), pictures.world.frames - 2)
    right: dict[str, list[np.ndarray]] = {name: [] for name in STATES}
    errors: list[float] = []
    for part in np.array_split(np.arange(len(clips)), max(1, len(clips) // 50)):
        read = heads(tokens(pictures.pixels[clips[part], frames[part]]))
        wanted = targets.at(clips[part], frames[part])
        for name in STATES:
            hit = (read[name].argmax(1) == wanted[name]).numpy().astype(float)
            right[name].append(np.where(wanted[name].numpy() < 0, np.nan, hit))
        miss = (read["face"] - wanted["face"])[wanted["core"] > 0].square().mean()
        errors.append(float(miss))
    joined = {name: np.concatenate(parts) for name, parts in right.items()}
    close = pictures.close[clips]
    found = {name: float(np.nanmean(hits)) for name, hits in joined.items()}
    found["face_left"] = float(np.mean(errors))  # of the numbers' variance, what is not told
    found["core_close"] = float(np.mean(joined["core"][close])) if close.any() else float("nan")
    return {name: round(value, 3) for name, value in found.items()}
