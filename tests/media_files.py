"""Small media files written at test time; every frame says its own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8
CELL = 16
WIDTH, HEIGHT = BITS * CELL, 64


def pattern(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Draw ``number`` (below 256) as black and white cells over the top row of a grey frame.

    Returns:
        uint8 RGB [height, width, 3].
    """
    image = np.full((height, width, 3), 96, np.uint8)
    image[height // 2 :, : width // 2] = (200, 40, 40)
    cell = width // BITS
    for bit in range(BITS):
        image[:CELL, bit * cell : (bit + 1) * cell] = 255 if number >> bit & 1 else 0
    return image


def number_of(image: np.ndarray) -> int:
    """Read the number back from an upright frame, through lossy coding."""
    cell = image.shape[1] // BITS
    row = image[CELL // 2].astype(int).sum(axis=1)
    return sum(1 << bit for bit in range(BITS) if row[bit * cell + cell // 2] > 3 * 128)


def write_video(
    path: Path,
    n: int = 30,
    *,
    fps: int = 25,
    pts: Sequence[int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    bframes: int = 2,
    rotation: int = 0,
    matrix: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    audio: np.ndarray | None = None,
    rate: int = 16_000,
    format: str | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write ``n`` pattern frames; ``pts`` are in units of 1/1000 s, default even at ``fps``.

    ``audio`` is float32 [channels, samples], stored beside the picture as AAC (or PCM in AVI).
    """
    codec_options = {"crf": "12"} if codec in ("libx264", "libx265") else {}
    if codec == "libx264":
        codec_options["x264-params"] = f"keyint={gop}:scenecut=0:bframes={bframes}:threads=1"
    codec_options |= options or {}
    with av.open(str(path), "w", format=format, options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=fps, options=codec_options)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        if codec in ("mpeg4", "mpeg2video"):
            stream.codec_context.max_b_frames = bframes
            stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000) if pts is not None else Fraction(1, fps)
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        sound = _add_audio(out, audio, rate) if audio is not None else None
        for k in range(n):
            frame = av.VideoFrame.from_ndarray(pattern(k, *size), format="rgb24")
            frame.pts = k if pts is None else pts[k]
            frame.time_base = Fraction(1, fps) if pts is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None and audio is not None:
            _encode_audio(out, sound, audio, rate)
    return path


def _add_audio(out: av.container.OutputContainer, audio: np.ndarray, rate: int, codec: str = ""):
    codec = codec or {"avi": "pcm_s16le", "matroska": "flac"}.get(out.format.name, "aac")
    return out.add_stream(codec, rate=rate, layout={1: "mono", 2: "stereo", 6: "5.1"}[len(audio)])


def _encode_audio(out: av.container.OutputContainer, stream, audio: np.ndarray, rate: int) -> None:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(audio)]
    step = 1024
    for start in range(0, audio.shape[1], step):
        block = np.ascontiguousarray(audio[:, start : start + step], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate = rate
        frame.pts = start
        frame.time_base = Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def write_audio(path: Path, audio: np.ndarray, rate: int = 16_000, codec: str = "") -> Path:
    """Write float32 [channels, samples] as the sound file the suffix names."""
    codec = codec or {".wav": "pcm_s16le", ".mp3": "libmp3lame", ".flac": "flac"}.get(
        path.suffix, "aac"
    )
    with av.open(str(path), "w") as out:
        stream = _add_audio(out, audio, rate, codec)
        _encode_audio(out, stream, audio, rate)
    return path


def tone(seconds: float, rate: int = 16_000, hertz: float = 440.0, level: float = 0.5):
    """Give a sine as float32 [samples]."""
    t = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def every_frame(path: Path) -> list[tuple[float, np.ndarray]]:
    """Decode a whole file the plain way, as an independent reference: (seconds, RGB), in order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return [
            (float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
        ]


def shown(frames: list[tuple[float, np.ndarray]], seconds: float) -> int:
    """Index of the frame on screen at ``seconds``: the last one whose time is not later."""
    return max([0, *(k for k, (t, _) in enumerate(frames) if t <= seconds + 1e-7)])
