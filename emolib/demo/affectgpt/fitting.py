"""Fit the image tower by least squares instead of gradient descent.

From random weights a small transformer needs some hundred thousand pictures before its attention
finds out where to look; on one core that is hours. But the demo world's people stand in about the
same place, and then a wide layer of random features of each patch with a linear readout learns
the same from ten thousand pictures in a minute. This module builds such a network out of the
tower's own parts:

* the patch projection gives whitened principal components, the position embedding a mark of row and
  column;
* the hidden units of all blocks but the last are random features of one patch each: the mark keeps
  them silent everywhere else;
* their output weights are the ridge regression of what causes a picture on the sum over all
  patches;
* the last block's attention is even: it hands every token that sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from emolib.demo import tower
from emolib.demo.affectgpt import towers
from emolib.demo.pictures import STATES, Pictures

_MARK = 32.0  # size of the mark of row and column
_GATE = 12.0  # what the marks of the right row and column must exceed together
_PULL = 4.3  # weight of a patch's content, against what LayerNorm takes away
_GAIN = 2.0  # of the sums handed on
_SHRUNK = 4.2  # what LayerNorm divides a token by, nearly the same for all because of the marks
_TARGETS = {  # what is regressed: states told by the tower, and which of their values
    "core": range(1, STATES["core"]),
    "body": range(1, STATES["body"]),
    "setting": range(1, STATES["setting"]),
    "noun": range(1),
    "age": (0, 2),
    "hair": (0, 2, 3, 4),
    "glasses": range(1),
}


def outputs() -> int:
    """Numbers the regression gives."""
    return sum(len(list(values)) for values in _TARGETS.values())


@torch.no_grad()
def prepare(model: Any, pictures: Pictures, seed: int) -> None:
    """Set everything but the regression's weights.

    Cost: principal components of a few hundred pictures' patches.
    """
    vision = model.vision_tower
    width, side = vision.config.hidden_size, vision.config.image_size // vision.config.patch_size
    content = width - outputs() - 2 * side
    towers.start_patches(model, pictures, seed)
    conv = vision.embeddings.patch_embedding
    conv.weight[content:] = 0.0
    conv.bias[content:] = 0.0
    places = vision.embeddings.position_embedding
    places.zero_()
    vision.embeddings.class_embedding.zero_()
    vision.embeddings.class_embedding[..., content] = _MARK * 2**0.5  # as long as the others
    for row in range(side):
        for column in range(side):
            at = places[0, 1 + row * side + column]
            at[content + row] = at[content + side + column] = _MARK
    generator = torch.Generator().manual_seed(seed)
    importance = _importance(side)
    for layer in vision.encoder.layers:
        for part in (layer.self_attn.qkv, layer.self_attn.projection, layer.mlp.fc1, layer.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    for layer in vision.encoder.layers[:-1]:
        units = layer.mlp.fc1.out_features
        where = torch.multinomial(importance, units, replacement=True, generator=generator)
        directions = torch.randn(units, content, generator=generator)
        layer.mlp.fc1.weight[:, :content] = _PULL * functional.normalize(directions, dim=1)
        rows = torch.arange(units)
        layer.mlp.fc1.weight[rows, content + where // side] = 1.0
        layer.mlp.fc1.weight[rows, content + side + where % side] = 1.0
        layer.mlp.fc1.bias.copy_(-_GATE + 0.5 * torch.randn(units, generator=generator))
    last = vision.encoder.layers[-1].self_attn
    told = torch.arange(content + 2 * side, width)
    last.qkv.weight[2 * width + told, told] = 1.0
    apart = torch.eye(len(told)) - 1 / len(told)  # LayerNorm moves all of them together
    gain = _GAIN * _SHRUNK * (side**2 + 1)
    last.projection.weight[told[:, None], told] = gain * apart
    closing = vision.post_layernorm.weight  # content, marks and sums in like sizes
    closing[:content] = 2.0
    closing[content : content + 2 * side] = 0.25
    closing[told] = _SHRUNK


def _importance(side: int) -> torch.Tensor:
    """How many units a patch gets: more where the head is, fewer at the edges."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    face = np.exp(-(((x - 0.5) / 0.17) ** 2) - ((y - 0.38) / 0.2) ** 2)
    body = np.exp(-(((x - 0.5) / 0.45) ** 2) - ((y - 0.65) / 0.35) ** 2)
    return torch.from_numpy(0.15 + 2.0 * face + 0.7 * body).flatten().float()


@torch.no_grad()
def collect(
    model: Any, pictures: Pictures, seed: int, each: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features and what causes the pictures: float [pictures, units], [pictures, outputs].

    Cost: the tower once over ``each`` pictures of every whole clip.

    Args:
        model: After :func:`prepare`.
        pictures: What is learnt from.
        seed: Of frames and lighting.
        each: Pictures a clip.
    """
    targets = towers.PictureTargets(pictures)
    clips = np.repeat(np.flatnonzero(~pictures.close), each)
    rng = np.random.default_rng((seed, 6))
    frames = rng.integers(0, pictures.world.frames, len(clips))
    features, wanted = [], []
    for part in np.array_split(np.arange(len(clips)), max(1, len(clips) // 64)):
        pixels = tower.varied(pictures.pixels[clips[part], frames[part]], rng, shift=1)
        features.append(hidden(model, towers.normalised(pixels)))
        right = targets.at(clips[part], frames[part])
        columns = [(right[k][:, None] == torch.tensor(list(v))) for k, v in _TARGETS.items()]
        wanted.append(torch.cat(columns, 1).float())
    return torch.cat(features), torch.cat(wanted)


@torch.no_grad()
def solve(model: Any, features: torch.Tensor, wanted: torch.Tensor, ridge: float) -> None:
    """Regress the causes on the features and put the result into the model.

    Args:
        model: After :func:`prepare`.
        features: From :func:`collect`; likewise ``wanted``.
        wanted: See ``features``.
        ridge: Penalty in thousandths of the features' mean variance.
    """
    layers = model.vision_tower.encoder.layers[:-1]
    x, y = features.double(), wanted.double()
    y = (y - y.mean(0)) / y.std(0).clamp(min=1e-6)  # what never changes is never told
    middle = x.mean(0)
    x = x - middle
    gram = x.T @ x / len(x)
    penalty = ridge * 1e-3 * gram.diagonal().mean()
    weights = torch.linalg.solve(gram + penalty * torch.eye(len(gram)).double(), x.T @ y / len(x))
    tokens = model.vision_tower.embeddings.position_embedding.shape[1]
    first = model.config.vision_config.hidden_size - outputs()
    start = 0
    for layer in layers:
        units = layer.mlp.fc2.in_features
        own = weights[start : start + units]
        layer.mlp.fc2.weight[first:] = own.T.float()
        layer.mlp.fc2.bias[first:] = -(middle[start : start + units] @ own).float() / tokens
        start += units


def hidden(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Hidden units of all blocks but the last, summed over the tokens: float [n, units]."""
    found: list[torch.Tensor] = []
    hooks = [
        layer.mlp.fc2.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].sum(1)))
        for layer in model.vision_tower.encoder.layers[:-1]
    ]
    model.vision_tower(pixels)
    for hook in hooks:
        hook.remove()
    return torch.cat(found, 1)
