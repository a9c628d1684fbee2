"""Open a media file safely and list its pictures' times without decoding any."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from emolib.errors import MediaError


@contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """Open ``path`` for reading as a PyAV container and name every fault of the file.

    Only a regular file is opened, and only as a file: a name that looks like an address, or
    a play list inside the file, leads nowhere else.

    Raises:
        MediaError: missing, empty, not a regular file, no permission, not a known format,
            or anything libav reports while the container is in use.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(f"{path}: not a regular file")
        if status.st_size == 0:
            raise MediaError(f"{path}: the file is empty (0 bytes)")
        with path.open("rb"):  # libav reports a missing permission less clearly
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        cause = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MediaError(f"{path}: cannot be opened: {cause}") from None
    try:
        name = f"file:{path.absolute()}"
        with av.open(name, options={"protocol_whitelist": "file"}, metadata_errors="replace") as c:
            yield c
    except av.FFmpegError as error:
        raise MediaError(f"{path}: cannot be read as video or sound: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Say in words what libav reported, without its number and file name."""
    return str(getattr(error, "strerror", None) or error).lower()


@dataclass(frozen=True, slots=True)
class Packet:
    """One coded picture as stored; ``pts`` and ``duration`` in ticks of the stream."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    hidden: bool


@dataclass(frozen=True)
class Timeline:
    """Every coded picture of a video stream, in the order stored, and when each is shown.

    Attributes:
        packets: In stored order, empty ones left out.
        base: Seconds in one tick.
        ticks: int64, ascending: when the pictures are shown, in ticks.
        exact: Every picture's own time is known, so that it can be asked for by it. Otherwise
            (AVI keeps none) the k-th picture decoded is the one shown at ``ticks[k]``.
        end: When the last picture ends, in ticks.
        promised: How many pictures the file's own tables announce; 0 = they do not say.
        cut: The file ends inside a picture, or before all that it announces.
    """

    packets: list[Packet]
    base: Fraction
    ticks: np.ndarray
    exact: bool
    end: int
    promised: int
    cut: bool
    position: dict[int, int] = field(repr=False, default_factory=dict)

    def seconds(self, tick: int) -> float:
        """Convert ticks to seconds."""
        return float(tick * self.base)

    def tick(self, seconds: float) -> int:
        """Convert seconds to the last tick not later, forgiving float rounding."""
        return int(np.floor(seconds / float(self.base) + 1e-3))


def video_stream(container: Any, path: Path) -> Any:
    """Choose the main picture stream, never cover art.

    Raises:
        MediaError: there is none; the message says what there is.
    """
    real = [
        s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic
    ]
    if not real:
        if not container.streams:
            raise MediaError(f"{path}: no picture or sound in it (cut short, or not a media file)")
        kinds = sorted({s.type for s in container.streams})
        art = " (only an attached cover picture)" if container.streams.video else ""
        raise MediaError(f"{path}: no video stream{art}; it holds {kinds}")
    best = container.streams.best("video")
    stream = next((s for s in real if best is not None and s.index == best.index), real[0])
    if stream.codec_context is None:
        raise MediaError(f"{path}: its video codec is not supported by this build of libav")
    return stream


def scan(container: Any, stream: Any, path: Path) -> Timeline:
    """List the pictures by reading the file once without decoding.

    Header durations and counts are not believed: they are wrong in cut, edited and
    badly written files. Cost grows with the file's size in bytes (disk speed), not with its
    pixels.

    Raises:
        MediaError: there is not one picture in the file.
    """
    in_tables = container.format.name.startswith("mov")
    promised = len(stream.index_entries) if in_tables else stream.frames
    packets: list[Packet] = []
    damaged = False
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue  # end of file, or AVI's "same picture again"
            damaged = packet.is_corrupt  # when it is the last one, the file was cut inside it
            packets.append(
                Packet(
                    packet.pts,
                    packet.dts,
                    packet.duration or 0,
                    packet.is_keyframe,
                    packet.is_discard,
                )
            )
    except av.FFmpegError:
        damaged = True
    if damaged and packets:
        packets.pop()
    shown = [p for p in packets if not p.hidden]
    if not shown:
        raise MediaError(f"{path}: the file ends before its first frame (cut short, or no frames)")
    base = stream.time_base
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    own = [p.pts for p in packets if p.pts is not None]
    # AVI stores no presentation times; libav invents them, wrongly for H.264 with B-frames.
    exact = container.format.name != "avi" and len(set(own)) == len(packets)
    stamps = [p.pts if exact or p.dts is None else p.dts for p in shown]
    if None in stamps or len(set(stamps)) < len(stamps):  # raw streams: only even spacing is left
        step = max(1, round(1 / (rate * base)))
        stamps = [k * step for k in range(len(shown))]
    ticks = np.array(sorted(t for t in stamps if t is not None), dtype=np.int64)
    last = max(shown, key=lambda p: p.pts or 0).duration
    usual = int(np.median(np.diff(ticks))) if len(ticks) > 1 else round(1 / (rate * base))
    end = int(ticks[-1]) + (last or usual)
    position = {p.pts: k for k, p in enumerate(packets) if p.pts is not None} if exact else {}
    cut = damaged or promised > len(packets)
    return Timeline(packets, base, ticks, exact, end, promised, cut, position)
