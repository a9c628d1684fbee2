"""A clip's files as the arrays the processor takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emolib.media.audio import NoAudioError, read_audio
from emolib.media.store import read_picture
from emolib.media.video import probe, read_frames
from emolib.models.affectgpt.frames import sample_indices

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def read_clip(path: Path, frames: int = 8) -> np.ndarray:
    """Decode the frames the published sampler takes, or a still picture.

    Args:
        path: A video or picture.
        frames: How many; a shorter video repeats its last one.

    Returns:
        uint8 [frames, height, width, 3] RGB, or [height, width, 3] of a picture.

    Raises:
        MediaError: unreadable or damaged.
    """
    if path.suffix.lower() in PICTURES:
        return read_picture(path)
    info = probe(path)
    # The middle of a frame's time is safe from rounding at either edge.
    middles = (sample_indices(info.n_frames, frames) + 0.5) / info.n_frames
    return np.stack(read_frames(path, info.start_s + middles * info.duration_s).images)


def read_sound(path: Path) -> np.ndarray | None:
    """The sound of a file, float32 [samples] at 16 kHz; None when it has no audio track.

    Raises:
        MediaError: unreadable or damaged.
    """
    try:
        return read_audio(path)
    except NoAudioError:
        return None
