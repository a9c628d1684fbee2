"""Frames of the world's clips as one array on disk: rendered once, read by every training.

No video is encoded; each frame goes through JPEG instead, which blurs and blocks it about as
much as H.264 does. Every fourth clip is shown as close-ups of the face, so that a model also
reads face crops.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emolib.datasets.demo import cast, render, spec, world
from emolib.datasets.demo.expression import unfold
from emolib.demo.recipe import Recipe
from emolib.files import read_json, write_json
from emolib.hashing import key_of
from emolib.media.sampling import clip_rng, segment_times
from emolib.progress import Progress

VERSION = 1  # raised when the same parameters would give other pictures
_EACH_FACE = 4  # every so many clips are close-ups
_CLOSE = (2.2, 2.9)  # side of a close-up over half the face's height
_JPEG = (55, 92)
_BATCH = 50


@dataclass(frozen=True, slots=True)
class World:
    """Which clips are rendered, and how.

    Attributes:
        clips: Number of clips.
        split: "train" or "val" of the world; test clips are not for training.
        domain: "base" or "target".
        seed: Seed of the world.
        frames: Frames a clip, one at random from each of as many equal parts.
        size: Side of the pictures, pixels.
        variants: So many clips in a row show the same person in the same place at the same
            moments, and differ in nothing but what their states cause.
    """

    clips: int
    split: str = "train"
    domain: str = "base"
    seed: int = 1
    frames: int = 6
    size: int = 128
    variants: int = 1

    def __post_init__(self) -> None:
        if self.split not in ("train", "val"):
            raise ValueError(f"split {self.split!r}: only train and val are rendered")

    def spec(self, index: int) -> spec.ClipSpec:
        """Give clip ``index``."""
        scene, variant = divmod(index, self.variants)
        clip = spec.draw(self.seed, self.domain, self.split, scene)
        if not variant:
            return clip
        rng = cast.keyed_rng(self.seed, self.domain, self.split, scene, "variant", variant)
        return replace(clip, latent=world.draw_latent(rng))

    def is_close(self, index: int) -> bool:
        """Tell whether a clip is shown as close-ups of the face."""
        return (index // self.variants) % _EACH_FACE == _EACH_FACE - 1


@dataclass(frozen=True)
class Pictures:
    """Rendered clips.

    Attributes:
        world: What they are.
        pixels: uint8 [clips, frames, size, size, 3], RGB, on disk.
        times: float64 [clips, frames], seconds.
        faces: float32 [clips, frames, 20], the numbers each face is drawn from
            (:class:`emolib.datasets.demo.expression.Expression`).
        close: bool [clips], close-ups of the face.
    """

    world: World
    pixels: np.ndarray
    times: np.ndarray
    faces: np.ndarray
    close: np.ndarray


def first(pictures: Pictures, clips: int) -> Pictures:
    """Give the first clips of a rendering; 0 = all."""
    n = min(clips, pictures.world.clips) or pictures.world.clips
    arrays = (pictures.pixels, pictures.times, pictures.faces, pictures.close)
    return Pictures(replace(pictures.world, clips=n), *(array[:n] for array in arrays))


def rendered(wanted: World, cache: Path, workers: int = 1) -> Pictures:
    """Open the pictures of a world, rendering them on first use (some 40 ms a clip and core).

    Args:
        wanted: What to render.
        cache: Folder of all renderings; 49 kB a picture of 128 pixels.
        workers: Processes.
    """
    folder = cache / f"pictures-{key_of(version=VERSION, **asdict(wanted))[:12]}"
    shape = (wanted.clips, wanted.frames, wanted.size, wanted.size, 3)
    if not (folder / "done.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, shape)
        times = np.zeros(shape[:2])
        faces = np.zeros((*shape[:2], 20), np.float32)
        parts = [range(i, min(i + _BATCH, wanted.clips)) for i in range(0, wanted.clips, _BATCH)]
        with (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
            Progress("pictures", wanted.clips, unit="clip") as bar,
        ):
            for part, made in zip(
                parts, pool.map(_render, [wanted] * len(parts), parts), strict=True
            ):
                pixels[part.start : part.stop], times[part.start : part.stop] = made[0], made[1]
                faces[part.start : part.stop] = made[2]
                bar.advance(len(part))
        pixels.flush()
        np.save(folder / "times.npy", times)
        np.save(folder / "faces.npy", faces)
        write_json(folder / "done.json", asdict(wanted))
    assert read_json(folder / "done.json") == asdict(wanted)
    return Pictures(
        world=wanted,
        pixels=np.load(folder / "pixels.npy", mmap_mode="r"),
        times=np.load(folder / "times.npy"),
        faces=np.load(folder / "faces.npy"),
        close=np.array([wanted.is_close(i) for i in range(wanted.clips)]),
    )


def _render(wanted: World, part: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cv2.setNumThreads(1)
    shape = (len(part), wanted.frames, wanted.size, wanted.size, 3)
    pixels, times = np.zeros(shape, np.uint8), np.zeros(shape[:2])
    faces = np.zeros((*shape[:2], 20), np.float32)
    for row, index in enumerate(part):
        pixels[row], times[row], faces[row] = clip_pictures(wanted, index)
    return pixels, times, faces


def clip_pictures(wanted: World, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render one clip: pictures uint8 [frames, size, size, 3], times, faces [frames, 20]."""
    clip = wanted.spec(index)
    plan = spec.speech(clip)
    rng = clip_rng(wanted.seed, f"{clip.name}/pictures")  # the same for all variants
    times = segment_times(0.0, plan.duration, wanted.frames, rng=rng)
    numbers = np.minimum((times * spec.FPS).astype(int), plan.frames - 1)
    close = wanted.is_close(index)
    x, y, half = render.head_place(clip)
    side = half * rng.uniform(*_CLOSE)
    x, y = x + rng.uniform(-5, 5), y + rng.uniform(-3, 9)
    turn = rng.uniform(-6, 6)
    drawn = dict(zip(sorted(set(numbers)), render.frames(clip, plan, set(numbers)), strict=True))
    pictures = []
    for number in numbers:
        quality = int(rng.integers(*_JPEG))
        code = cv2.imencode(".jpg", drawn[number], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = cv2.imdecode(code, cv2.IMREAD_COLOR)
        if close:
            matrix = cv2.getRotationMatrix2D((x, y), turn, wanted.size / side)
            matrix[:, 2] += wanted.size / 2 - np.array([x, y])
            image = cv2.warpAffine(image, matrix, (wanted.size,) * 2, flags=cv2.INTER_LINEAR)
        else:
            image = cv2.resize(image, (wanted.size,) * 2, interpolation=cv2.INTER_AREA)
        pictures.append(image[..., ::-1])
    moments = unfold(clip, plan)
    faces = [list(asdict(moments[number]).values()) for number in numbers]
    return np.stack(pictures), times, np.array(faces, np.float32)


def worlds(
    recipe: Recipe, cache: Path, workers: int = 2, domain: str = "base"
) -> tuple[Pictures, Pictures]:
    """Render what a recipe learns from one domain and what it is measured on there."""
    common: dict[str, Any] = {"seed": recipe.world_seed, "domain": domain}
    clips = recipe.target_clips if domain == "target" else recipe.clips
    return (
        rendered(World(clips=clips, variants=recipe.variants, **common), cache, workers),
        rendered(World(clips=recipe.val_clips, split="val", **common), cache, workers),
    )


def states(wanted: World) -> dict[str, np.ndarray]:
    """Give what a supervised tower learns: name -> int64 [clips], 0 = nothing of the kind.

    "core" counts concepts (core and degree) from 1, 0 where the face is turned away.
    """
    cores = [f"core.{name}.{degree}" for name in world.CORES for degree in ("mild", "strong")]
    kinds: dict[str, list[Any]] = {
        "core": ["", *cores],
        "body": ["", *(s.name for s in world.SECONDARY["body"])],
        "setting": ["", *(s.name for s in world.SECONDARY["setting"])],
        "noun": ["man", "woman"],
        "age": ["young", "middle-aged", "old"],
        "hair": ["black", "brown", "blond", "red", "grey", "white"],
    }
    found: dict[str, list[int]] = {name: [] for name in kinds}
    for index in range(wanted.clips):
        clip = wanted.spec(index)
        values = {
            "core": "" if clip.turned else clip.latent.concept("core"),
            "body": clip.latent.body,
            "setting": clip.latent.setting,
            "noun": clip.who.noun,
            "age": clip.who.age,
            "hair": clip.who.hair_name,
        }
        for name, value in values.items():
            found[name].append(kinds[name].index(value))
    return {name: np.array(numbers) for name, numbers in found.items()}


STATES = {"core": 17, "body": 9, "setting": 9, "noun": 2, "age": 3, "hair": 6}
