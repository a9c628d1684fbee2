"""What of a clip there is for a recipe, and the sound it brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.hashing import sha_file
from emolib.media.audio import RATE, read_audio
from emolib.media.video import probe
from emolib.params.baselines import Recipe


@dataclass(frozen=True, slots=True)
class Seen:
    """What a recipe sees of one clip.

    Attributes:
        kinds: Those of the recipe's inputs that the clip has.
        video: Where frames come from, or None.
        sound: Where sound comes from, or None.
        shas: Content hashes of the two by kind.
        words: What is said, or None.
        fault: Why the clip cannot be asked about; "" when it can.
    """

    kinds: tuple[str, ...]
    video: Path | None
    sound: Path | None
    shas: dict[str, str]
    words: str | None
    fault: str = ""

    def to_info(self, recipe: Recipe) -> dict[str, Any]:
        """What is kept beside the answer."""
        absent = [kind for kind in recipe.inputs if kind not in self.kinds]
        return {"inputs": list(self.kinds)} | ({"absent": absent} if absent else {})


def look(clip: Clip, recipe: Recipe) -> Seen:
    """Find out what of a clip there is for a recipe; nothing is decoded.

    Cost: one hash of each file a process, one header where sound may lie in the video.
    """
    video = clip.video if "frames" in recipe.inputs else None
    sound = _sound_file(clip) if "audio" in recipe.inputs else None
    words = clip.subtitle if "words" in recipe.inputs else None
    there = {"frames": video, "audio": sound, "words": words}
    kinds = tuple(kind for kind in recipe.inputs if there[kind] is not None)
    try:
        shas = {k: sha_file(f) for k, f in (("video", video), ("audio", sound)) if f is not None}
    except OSError as error:
        fault = f"{clip.video}: cannot be read: {error.strerror or error}"
        return Seen((), None, None, {}, None, fault)
    fault = "" if kinds else f"{clip.name} has none of {list(recipe.inputs)}"
    return Seen(kinds, video, sound, shas, words, fault)


def _sound_file(clip: Clip) -> Path | None:
    if clip.audio is not None:
        return clip.audio
    try:
        return clip.video if probe(clip.video).has_audio else None
    except MediaError:
        return clip.video  # decoding it says what is wrong with the file


def hear(path: Path, seconds: float, info: dict[str, Any]) -> np.ndarray:
    """The beginning of a sound, float32 [samples] at 16 kHz; ``info`` learns what was left out.

    Raises:
        MediaError: no sound, or not readable.
    """
    samples = read_audio(path)
    info["sound_s"] = round(len(samples) / RATE, 3)
    if len(samples) > seconds * RATE:
        info["heard_s"] = seconds
        samples = samples[: int(seconds * RATE)]
    return samples
