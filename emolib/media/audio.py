"""Read the sound of a file: as one float32 channel, or every channel by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from emolib.errors import MediaError, NoAudioError
from emolib.media.container import open_media, reason
from emolib.media.records import Sound
from emolib.media.supervisor import active

__all__ = ["NoAudioError", "is_silent", "read_audio", "read_channels"]

RATE = 16_000  # Hz; what speech models take
# Packets of a sound file that may be undecodable (MP3s often start with a stray one).
BAD_SHARE = 0.01
STATED_SLACK = 0.1  # seconds a FLAC may be shorter than its header says


def read_audio(path: Path, rate: int = RATE) -> np.ndarray:
    """Decode the first audio track of a sound or video file.

    Channels are averaged (every channel with the same weight, nothing louder than the loudest
    of them). The track is taken from its own beginning: an offset between it and the picture
    (edit lists, late tracks) is ignored. A silent track is zeros and no error.

    Cost grows with the track's length; a second is 64 kB at 16 kHz, held twice for a moment.

    Args:
        path: wav, mp3, flac, mp4, avi, mkv, or anything else libav reads.
        rate: Samples a second of the result.

    Returns:
        float32 [samples] in [-1, 1].

    Raises:
        NoAudioError: there is no sound in the file.
        MediaError: missing or corrupt file, a track cut short or more than 1 % damaged;
            names the file and how much could be read. (A cut MP3 or MKV that ends between two
            packets cannot be told from a short one: neither states its true length.)
    """
    path = Path(path)
    if (workers := active()) is not None:
        return cast(np.ndarray, workers.call("read_audio", path, rate=rate))
    blocks, _ = _blocks(path, rate, lambda block: block.mean(axis=1, dtype=np.float32))
    return _whole(blocks, path)


def read_channels(path: Path) -> Sound:
    """Decode the first audio track of a file as it is: every channel, at the file's own rate.

    Args:
        path: As for :func:`read_audio`, which says what counts as damaged.

    Raises:
        NoAudioError: there is no sound in the file.
        MediaError: missing or corrupt file, or the number of channels changes in it.
    """
    path = Path(path)
    if (workers := active()) is not None:
        return cast(Sound, workers.call("read_channels", path))
    blocks, rate = _blocks(path, 0, lambda block: block)
    if len({block.shape[1] for block in blocks}) > 1:
        raise MediaError(f"{path}: the number of channels changes within the audio track")
    return Sound(np.ascontiguousarray(_whole(blocks, path).T), rate)


def _blocks(
    path: Path, rate: int, take: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[np.ndarray], int]:
    """What ``take`` makes of every [samples, channels] of the track, and their rate; 0 = its own.

    Raises:
        NoAudioError: no sound.
        MediaError: as :func:`read_audio`.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            kinds = sorted({s.type for s in container.streams})
            raise NoAudioError(f"{path}: no audio track; it holds {kinds or 'nothing'}")
        stream = container.streams.best("audio") or container.streams.audio[0]
        if stream.codec_context is None:
            raise MediaError(f"{path}: its audio codec is not supported by this build of libav")
        rate = rate or stream.codec_context.sample_rate
        blocks = [take(block) for block in _resampled(_decoded(container, stream, path), rate)]
    if not blocks:
        raise NoAudioError(f"{path}: the audio track is empty")
    return blocks, rate


def _whole(blocks: list[np.ndarray], path: Path) -> np.ndarray:
    sound = np.concatenate(blocks)
    if not np.isfinite(sound).all():
        raise MediaError(f"{path}: the audio track holds values that are not numbers")
    # Resampling overshoots at full-scale edges; float files may exceed full scale.
    return np.clip(sound, -1.0, 1.0, out=sound)


def is_silent(
    sound: np.ndarray, rate: int = RATE, *, threshold_db: float = -50.0, window_s: float = 0.1
) -> bool:
    """Tell whether nothing in ``sound`` is loud enough to be speech.

    The loudest window counts, not the whole: one word in a minute of silence is not silence.
    A constant offset is not sound.

    Args:
        sound: float [samples] in [-1, 1].
        rate: Hz of ``sound``.
        threshold_db: Loudest root-mean-square level still called silent, in dB of full scale.
            Room noise of recordings lies near -60, quiet speech near -35.
        window_s: Length of a window, seconds.
    """
    if sound.size == 0:
        return True
    size = min(sound.size, max(1, round(window_s * rate)))
    x = sound.astype(np.float64) - float(np.mean(sound, dtype=np.float64))
    whole = x[: x.size // size * size].reshape(-1, size)
    powers = [np.square(whole).mean(axis=1).max(), np.square(x[-size:]).mean()]
    return bool(max(powers) < 10 ** (threshold_db / 10))


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Give the track's frames, forgiving a few bad packets but no missing end."""
    good = bad = 0
    seconds = 0.0
    cause = ""
    cut = False
    stream.codec_context.options = {"err_detect": "crccheck"}  # FLAC: else noise passes for sound
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    tables = container.format.name.startswith("mov")
    packets = len(stream.index_entries) if tables else 0
    stated = container.format.name == "flac" and stream.duration is not None
    wave = container.format.name == "wav"
    length = float(stream.duration * stream.time_base) if stated else 0.0
    try:
        for packet in container.demux(stream):
            if packet.size:
                cut = packet.is_corrupt and not wave  # matters when it is the last one
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                bad, cause = bad + 1, reason(error)
                continue
            good += bool(packet.size)
            for frame in frames:
                seconds += frame.samples / frame.sample_rate
                yield frame
    except av.FFmpegError as error:
        cut, cause = True, reason(error)
    if bad > max(1, BAD_SHARE * good) or (bad and not seconds):
        raise MediaError(
            f"{path}: the audio track is damaged ({bad} of {good + bad} packets: {cause}); "
            f"{seconds:.2f} s could be read"
        )
    cut = cut or (wave and _wave_is_cut(path))
    if cut or good + bad < packets or seconds < length - STATED_SLACK:
        raise MediaError(
            f"{path}: the audio track is cut short; {seconds:.2f} s could be read"
            + (f" of {length:.2f} s" if length else "")
        )


def _wave_is_cut(path: Path) -> bool:
    """Tell whether a WAV file ends before its samples do.

    What counts is the length its ``data`` chunk states: many writers get the RIFF length wrong,
    by a header or by padding. Written to a pipe, a file states no length that means anything.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 12  # behind "RIFF", length, "WAVE"
        while at + 8 <= size:
            file.seek(at)
            head = file.read(8)
            stated = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return size < at + 8 + stated and stated < 2**31 - 2**16
            at += 8 + stated + stated % 2  # chunks begin at even places
    return False


def _resampled(frames: Iterator[Any], rate: int) -> Iterator[np.ndarray]:
    """Give blocks of float32 [samples, channels] at ``rate``.

    Only the rate is left to libswresample: its own down-mix to mono is 3 dB louder than the
    mean in float and may exceed full scale.
    """
    resampler: Any = None
    kind: tuple[str, str, int] | None = None
    for frame in frames:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if now != kind:  # also in the middle of a stream
            if resampler is not None:
                yield from _arrays(resampler.resample(None))
            resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
            kind = now
        frame.pts = None  # gaps in the time stamps are not filled
        yield from _arrays(resampler.resample(frame))
    if resampler is not None:
        yield from _arrays(resampler.resample(None))


def _arrays(frames: list[Any]) -> Iterator[np.ndarray]:
    for frame in frames:
        if frame.samples:
            # Interleaved: PyAV misreads the planes of frames with more than eight channels.
            yield frame.to_ndarray().reshape(frame.samples, frame.layout.nb_channels)
