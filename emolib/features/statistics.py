"""The extractors that need no weights: voice, picture and words of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.features import voice, words
from emolib.features.table import Level, Modality
from emolib.hashing import sha_file
from emolib.params.media import FaceParams

VERSION = 1  # raise it when a number changes: cached features are then computed anew


class VoiceStatistics:
    """Prosody and spectrum of the sound (:mod:`emolib.features.voice`).

    Args:
        level: "utterance" [164] or "frame" [frames, 24], one every 10 ms.
    """

    name = "voice"
    modality: Modality = "audio"
    batch_size = 1
    threaded = True

    def __init__(self, level: Level = "utterance") -> None:
        self.level = level
        self.identity: dict[str, Any] = {"kind": "voice", "version": VERSION, "level": level}

    def content(self, clip: Clip) -> dict[str, Any]:
        """The sound's file."""
        return {"audio": sha_file(clip.audio or clip.video)}

    def load(self, clip: Clip) -> np.ndarray:
        """float32 [samples] at 16 kHz."""
        from emolib.media.audio import read_audio

        return read_audio(clip.audio or clip.video)

    def extract(self, items: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One array a sound."""
        measure = voice.voice_features if self.level == "utterance" else voice.voice_frames
        return [measure(sound) for sound in items]


class PictureStatistics:
    """Colours, edges and the face of evenly spaced frames (:mod:`emolib.features.picture`).

    Args:
        level: "utterance" [710] (means, deviations) or "frame" [frames, 355].
        frames: Frames of each clip.
        face: How faces are found and cut out.
    """

    name = "picture"
    modality: Modality = "visual"
    batch_size = 1

    def __init__(
        self, level: Level = "utterance", frames: int = 6, face: FaceParams | None = None
    ) -> None:
        self.level, self.frames = level, frames
        self.face = face or FaceParams(size=128)
        self.identity: dict[str, Any] = {
            "kind": "picture",
            "version": VERSION,
            "level": level,
            "frames": frames,
            "face": self.face.model_dump(mode="json"),
        }
        self.threaded = self.face.detector == "haar"  # a network would be held once a thread
        self.faces: dict[str, Any] = {}

    def content(self, clip: Clip) -> dict[str, Any]:
        """The video's file."""
        return {"video": sha_file(clip.video)}

    def load(self, clip: Clip) -> tuple[Any, Any]:
        """The frames and their face crops."""
        images, crops = read_faces(clip, self.frames, self.face)
        self.faces[clip.name] = _face_record(crops)
        return images, crops

    def extract(self, items: Sequence[tuple[Any, Any]]) -> list[np.ndarray]:
        """One array a clip."""
        from emolib.features.picture import picture_features, picture_frames

        tables = [picture_frames(images, crops) for images, crops in items]
        return tables if self.level == "frame" else [picture_features(t) for t in tables]


def _face_record(crops: Any) -> dict[str, object]:
    from emolib.media.faces import face_record

    return face_record(crops)


def read_faces(clip: Clip, frames: int, face: FaceParams) -> tuple[Any, Any]:
    """Evenly spaced frames of a clip and the face crop of each, by the thread's own detector."""
    from emolib.media.faces import crop_faces
    from emolib.media.video import sample_frames

    images = sample_frames(clip.video, frames, rule="uniform").images
    return images, crop_faces(images, face)


class WordStatistics:
    """Hashed n-grams of the subtitle (:mod:`emolib.features.words`), utterance level only.

    Args:
        size: Columns of n-grams, a power of two.
    """

    name = "words"
    modality: Modality = "text"
    batch_size = 256

    def __init__(self, size: int = words.SIZE) -> None:
        self.size = size
        self.identity: dict[str, Any] = {"kind": "words", "version": VERSION, "size": size}

    def content(self, clip: Clip) -> dict[str, Any]:
        """The words."""
        return {"text": spoken(clip)}

    def load(self, clip: Clip) -> str:
        """The words."""
        return spoken(clip)

    def extract(self, items: Sequence[str]) -> list[np.ndarray]:
        """One vector a text."""
        return list(words.text_features(items, self.size))


def spoken(clip: Clip) -> str:
    """The clip's subtitle.

    Raises:
        MediaError: there is none; the clip then counts as missing in this modality.
    """
    if not clip.subtitle:
        raise MediaError(f"{clip.name}: no subtitle ({clip.subtitle_source})")
    return clip.subtitle
