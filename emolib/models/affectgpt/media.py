"""A clip's files as the arrays the processor takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.media.audio import RATE, NoAudioError, read_audio, read_channels
from emolib.media.store import read_picture
from emolib.media.video import probe, read_frames

#: Version of how a file becomes arrays (:func:`read_clip`, :func:`read_sound` and what they call).
#: Raise it with every change that gives other arrays: features cached before it count no more.
DECODING = 2
FRAMES = ".npy"  # frames ready to be shown, uint8 RGB [frames, height, width, 3]
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def sample_indices(total: int, wanted: int) -> np.ndarray:
    """Evenly spaced frames from the first on; a short video repeats its last sampled frame.

    Args:
        total: Frames there are, at least 1.
        wanted: Frames to take.

    Returns:
        int64 [wanted], not decreasing, each in [0, total).

    Source: the published sampler; ⌊i · total / wanted⌋ for long enough videos.
    """
    if total < wanted:
        return np.minimum(np.arange(wanted), total - 1)
    return np.arange(wanted, dtype=np.int64) * total // wanted


def read_clip(path: Path, frames: int = 8) -> np.ndarray:
    """Decode the frames the published sampler takes, or a still picture.

    Args:
        path: A video, a picture, or frames kept as an array (:data:`FRAMES`).
        frames: How many; a shorter video repeats its last one.

    Returns:
        uint8 [frames, height, width, 3] RGB, or [height, width, 3] of a picture.

    Raises:
        MediaError: unreadable or damaged.
    """
    if path.suffix.lower() in PICTURES:
        return read_picture(path)
    if path.suffix.lower() == FRAMES:
        return _kept_frames(path)
    info = probe(path)
    # The middle of a frame's time is safe from rounding at either edge.
    middles = (sample_indices(info.n_frames, frames) + 0.5) / info.n_frames
    return np.stack(read_frames(path, info.start_s + middles * info.duration_s).images)


def _kept_frames(path: Path) -> np.ndarray:
    try:
        frames = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: no array of frames: {error}") from None
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise MediaError(
            f"{path}: {frames.dtype} {list(frames.shape)}, expected uint8 "
            "[frames, height, width, 3]"
        )
    return frames


def sound_file(clip: Clip) -> Path | None:
    """The file with a clip's sound: its own, else its video if that has an audio track.

    Raises:
        MediaError: the video cannot be read.
    """
    if clip.audio is not None:
        return clip.audio
    if clip.video.suffix.lower() == FRAMES:
        return None
    return clip.video if probe(clip.video).has_audio else None


def read_sound(path: Path, channels: bool = False) -> np.ndarray | None:
    """The sound of a file at 16 kHz.

    Args:
        path: With or without an audio track.
        channels: Every channel by itself, its rate changed as the published code does: what a
            feature extractor with ``reference_compat`` is to be given.

    Returns:
        float32 [samples], or with ``channels`` [channels, samples]; None: no audio track.

    Raises:
        MediaError: unreadable or damaged.
    """
    try:
        if not channels:
            return read_audio(path)
        sound = read_channels(path)
    except NoAudioError:
        return None
    from emolib.models.affectgpt.sound import resample

    return resample(sound.samples, sound.rate, RATE)
