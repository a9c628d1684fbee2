"""Train what sees and hears: the image tower with its Q-Former, and the audio tower.

Both learn by naming what causes a picture or a sound, through linear heads that are thrown away.
Every token of the image Q-Former answers for one kind of thing, so that what a picture shows lies
in known tokens, as in a Q-Former aligned with captions. The image tower starts from the nano
InternVL's, which has learned to see the same world, and is trained on with many made-up cameras
(:mod:`emolib.demo.affectgpt.cameras`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from emolib import nano
from emolib.datasets.demo import cast
from emolib.demo import tower
from emolib.demo.affectgpt import cameras, sizes
from emolib.demo.affectgpt.sounds import STATES as HEARD
from emolib.demo.affectgpt.sounds import Sounds
from emolib.demo.pictures import STATES, Pictures

_PLACES = [place.name for place in cast.PLACES["base", "train"]]
_CLOTHES = list(cast._CLOTHES)
_GARMENTS = list(cast._GARMENTS)
_MORE = {
    "place": len(_PLACES),
    "time": 4,
    "weather": 4,
    "clothes": len(_CLOTHES),
    "garment": len(_GARMENTS),
    "glasses": 2,
    "bald": 2,
}
# Token of the image Q-Former -> what it answers for. "face" are the numbers it is drawn from.
_TOKENS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("face",),
    ("body",),
    ("setting",),
    ("noun", "age", "hair", "glasses", "bald"),
    ("place", "time", "weather"),
    ("clothes", "garment"),
    ("core", "body", "setting"),
)
_WEIGHTS = {"core": 1.5, "face": 8.0, "body": 1.0, "setting": 1.0}
_OTHER = 0.25


class PictureHeads(nn.Module):
    """Linear readings of the image Q-Former's tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = STATES | _MORE | {"face": 20}
        self.heads = nn.ModuleList(
            [nn.ModuleDict({n: nn.Linear(width, sizes[n]) for n in names}) for names in _TOKENS]
        )

    def forward(self, tokens: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        """Read tokens [pictures, queries, width]: (what, logits) pairs."""
        return [
            (name, head(tokens[:, at]))
            for at, heads in enumerate(self.heads)
            for name, head in heads.items()
        ]


class PictureTargets(tower.Targets):
    """Beside what every nano tower learns: place, time, weather, clothes and the like."""

    def __init__(self, pictures: Pictures) -> None:
        super().__init__(pictures)
        rows = []
        for index in range(pictures.world.clips):
            clip = pictures.world.spec(index)
            out, who = clip.place.outside, clip.who
            rows.append(
                (
                    _PLACES.index(clip.place.name) if clip.place.name in _PLACES else -100,
                    cast.TIMES.index(clip.time) + 1 if out else 0,
                    cast.WEATHER.index(clip.weather) + 1 if out else 0,
                    _CLOTHES.index(who.clothes_name),
                    _GARMENTS.index(who.garment),
                    int(who.glasses),
                    int(who.cut == "bald"),
                )
            )
        facing = self.values["core"] > 0
        spread = self.face[facing].std(0) + 1e-3
        self.face = (self.face - self.face[facing].mean(0)) / spread
        for name, values in zip(_MORE, zip(*rows, strict=True), strict=True):
            column = np.repeat(np.array(values)[:, None], pictures.world.frames, 1)
            column[pictures.close] = -100
            self.values[name] = column


def picture_loss(
    model: Any, heads: PictureHeads, pictures: Pictures, batch: int, seed: int
) -> Callable[[int], torch.Tensor]:
    """Make the loss of a step over random whole pictures, taken with random cameras."""
    targets = PictureTargets(pictures)
    whole = np.flatnonzero(~pictures.close)

    def at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step))
        clips = np.sort(rng.choice(whole, batch))
        frames = rng.integers(0, pictures.world.frames, batch)
        seen = cameras.filmed(tower.varied(pictures.pixels[clips, frames], rng), rng)
        wanted = targets.at(clips, frames)
        total = torch.zeros(())
        for name, read in heads(look(model, normalised(seen))):
            weight = _WEIGHTS.get(name, _OTHER)
            if name == "face":
                facing = wanted["core"] > 0
                missed = functional.smooth_l1_loss(read[facing], wanted["face"][facing])
                total = total + weight * missed
            else:
                total = total + weight * functional.cross_entropy(
                    read, wanted[name], ignore_index=-100, label_smoothing=0.05
                )
        return total

    return at


def seen_before() -> Any:
    """Load the vision tower of the nano InternVL."""
    from transformers import InternVLForConditionalGeneration

    whole = InternVLForConditionalGeneration.from_pretrained(nano.folder("internvl"))
    return whole.float().model.vision_tower


@torch.no_grad()
def take_over(vision: Any, known: Any) -> None:
    """Start the image tower as a copy of the nano InternVL's: the same outputs but for LayerNorm.

    Args:
        vision: BLIP-2's vision tower, set in place.
        known: InternVL's, of the same sizes.
    """
    here, there = vision.embeddings, known.embeddings
    patches = there.patch_embeddings.projection
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    scale = std / torch.tensor(tower.STD)  # the two normalise pixels differently
    offset = (mean - torch.tensor(tower.MEAN)) / torch.tensor(tower.STD)
    here.patch_embedding.weight.copy_(patches.weight * scale[:, None, None])
    moved = (patches.weight * offset[:, None, None]).sum((1, 2, 3))
    here.patch_embedding.bias.copy_(patches.bias + moved)
    here.class_embedding.copy_(there.cls_token)
    here.position_embedding.copy_(there.position_embeddings)
    for new, old in zip(vision.encoder.layers, known.encoder.layer, strict=True):
        new.layer_norm1.load_state_dict(old.layernorm_before.state_dict())
        new.layer_norm2.load_state_dict(old.layernorm_after.state_dict())
        three = [getattr(old.attention, f"{name}_proj") for name in "qkv"]
        new.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in three]))
        new.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in three]))
        new.mlp.fc1.load_state_dict(old.mlp.fc1.state_dict())
        for layer, source, by in (
            (new.self_attn.projection, old.attention.projection_layer, old.lambda_1),
            (new.mlp.fc2, old.mlp.fc2, old.lambda_2),
        ):
            layer.weight.copy_(source.weight * by[:, None])
            layer.bias.copy_(source.bias * by)


def look(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Image Q-Former on the image tower, gradients in both: float [n, queries, width]."""
    return model.image_qformer.read(model.vision_tower(pixels).last_hidden_state)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Turn uint8 [n, side, side, 3] into what the processor gives: float [n, 3, size, size]."""
    size = sizes.IMAGE_SIZE
    if pixels.shape[1] != size:
        small = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in pixels]
        pixels = np.stack(small)
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    return (scaled - mean[:, None, None]) / std[:, None, None]


@torch.no_grad()
def picture_accuracy(
    model: Any, heads: PictureHeads, pictures: Pictures, share: float = 0.0
) -> dict[str, float]:
    """How often each head is right on one late frame of each whole clip.

    Args:
        model: The whole AffectGPT.
        heads: Of :func:`picture_loss`.
        pictures: Unseen ones.
        share: Of them taken with other cameras.
    """
    model.eval()
    rng = np.random.default_rng(5)
    targets = PictureTargets(pictures)
    clips = np.flatnonzero(~pictures.close)
    frames = np.full(len(clips), pictures.world.frames - 2)
    hits: dict[str, list[np.ndarray]] = {}
    for part in np.array_split(np.arange(len(clips)), max(1, len(clips) // 50)):
        wanted = targets.at(clips[part], frames[part])
        taken = cameras.filmed(pictures.pixels[clips[part], frames[part]], rng, share)
        read = heads(look(model, normalised(taken)))
        seen: set[str] = set()
        for name, logits in read:
            if name == "face" or name in seen:
                continue
            seen.add(name)
            there = wanted[name].numpy() != -100
            right = (logits.argmax(1) == wanted[name]).numpy()
            hits.setdefault(name, []).append(right[there])
    return {
        name: round(float(np.concatenate(parts).mean()), 3)
        for name, parts in hits.items()
        if len(np.concatenate(parts))
    }


class SoundHeads(nn.Module):
    """Linear readings of a clip's mean embedding, and of its spectrum band by band."""

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in HEARD.items()})
        self.bands = nn.ModuleDict({name: nn.Linear(bands, n) for name, n in HEARD.items()})

    def forward(
        self, pieces: torch.Tensor, bands: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Read embeddings [clips, pieces, width] and bands [clips, pieces, bands]."""
        mean, spectrum = pieces.mean(1), bands.mean(1)
        return (
            {name: head(mean) for name, head in self.heads.items()},
            {name: head(spectrum) for name, head in self.bands.items()},
        )


def hear(model: Any, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The audio tower with a look inside.

    Args:
        model: The whole AffectGPT.
        mel: float [clips, pieces, 1, bins, frames].

    Returns:
        Embeddings [clips, pieces, width], and [clips, pieces, rows x hidden width]: the last
        block's output by row of patches, averaged over time.
    """
    tower = model.audio_tower
    hidden = tower.embeddings(mel.flatten(0, 1))
    for layer in tower.layers:
        hidden = layer(hidden)
    pooled = tower.projection(tower.norm(hidden[:, 0]))
    pooled = functional.normalize(pooled, dim=-1) * tower.config.logit_scale
    rows, columns = tower.config.patch_grid
    bands = hidden[:, 1:].unflatten(1, (rows, columns)).mean(2).flatten(1)
    return pooled.unflatten(0, mel.shape[:2]), bands.unflatten(0, mel.shape[:2])


def sound_loss(
    model: Any, heads: SoundHeads, sounds: Sounds, batch: int, seed: int
) -> Callable[[int], torch.Tensor]:
    """Make the loss of a step over random clips, two pieces each: the first and any other."""
    pieces = sounds.mel.shape[1]
    states = {name: torch.from_numpy(values) for name, values in sounds.states.items()}

    def at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step, 1))
        clips = np.sort(rng.integers(0, sounds.world.clips, batch))
        chosen = np.stack([np.zeros(batch, np.int64), rng.integers(1, pieces, batch)], 1)
        mel = varied_mel(sounds.mel[clips[:, None], chosen].astype(np.float32), rng)
        total = torch.zeros(())
        for read in heads(*hear(model, torch.from_numpy(mel))):
            for name, weight in (("core", 1.0), ("voice", 1.0), ("noun", 0.2)):
                total = total + weight * functional.cross_entropy(
                    read[name], states[name][clips], label_smoothing=0.05
                )
        return total

    return at


def varied_mel(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift spectrograms [clips, pieces, 1, bins, frames] a little in loudness, pitch and time."""
    moved = mel + rng.normal(0, 0.02, (len(mel), 1, 1, 1, 1)).astype(np.float32)
    for row in range(len(mel)):
        bins, frames = int(rng.integers(-2, 3)), int(rng.integers(-8, 9))
        moved[row] = np.roll(moved[row], (bins, frames), (-2, -1))
    return moved + rng.normal(0, 0.02, mel.shape).astype(np.float32)


@torch.no_grad()
def sound_accuracy(model: Any, heads: SoundHeads, sounds: Sounds) -> dict[str, float]:
    """How often each head is right, all pieces heard; "emotion" is the core without its degree."""
    model.eval()
    found: dict[str, list[np.ndarray]] = {}
    for part in np.array_split(np.arange(sounds.world.clips), max(1, sounds.world.clips // 50)):
        mel = torch.from_numpy(sounds.mel[part].astype(np.float32))
        for kind, read in zip(("", ", bands"), heads(*hear(model, mel)), strict=True):
            for name, logits in read.items():
                said, wanted = logits.argmax(1).numpy(), sounds.states[name][part]
                found.setdefault(f"{name}{kind}", []).append(said == wanted)
                if name == "core":
                    found.setdefault(f"emotion{kind}", []).append(said // 2 == wanted // 2)
    return {name: round(float(np.concatenate(parts).mean()), 3) for name, parts in found.items()}


def whitened(
    samples: torch.Tensor, conv: nn.Conv2d, softened: float = 0.02
) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal components of patches, each of unit variance, as weight and bias of ``conv``.

    Brightness and loudness vary thousands of times as much as the thin lines a face is drawn
    with; from random weights those are learnt last.

    Args:
        samples: float [n, channels, height, width].
        conv: Whose patches.
        softened: Part of the mean variance added to each.
    """
    side, step = conv.kernel_size[0], conv.stride[0]
    patches = functional.unfold(samples, side, stride=step).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    values, vectors = values.flip(0)[: conv.out_channels], vectors.flip(1)[:, : conv.out_channels]
    weight = (vectors / (values + softened * values.mean()).sqrt()).T
    return weight.view_as(conv.weight).float(), -(weight @ mean).float()


@torch.no_grad()
def start_sounds(model: Any, sounds: Sounds, seed: int, many: int = 300) -> None:
    """Start the audio tower's patch projection at whitened components of the spectrograms."""
    clips = np.sort(
        np.random.default_rng(seed).choice(len(sounds.mel), min(many, len(sounds.mel)), False)
    )
    mel = torch.from_numpy(sounds.mel[clips, 0].astype(np.float32))
    conv = model.audio_tower.embeddings.projection  # without bias: a LayerNorm follows
    conv.weight.copy_(whitened(mel, conv)[0])
