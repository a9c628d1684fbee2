"""Read single frames of a video, each with the time it is really shown.

A frame is named by time, never by number: the frame at time t is the last one shown by then.
That stays right for variable frame rates, files that start late and reordered (B) frames,
where counting or seeking by frame number lands elsewhere.

Cost: the file is read once to list its pictures (disk speed), then decoding starts at the key
frame before each wanted one. A clip with one key frame costs its length up to the last wanted
frame; a long film costs a group of pictures a frame. Memory holds the wanted frames and a few
more, whatever the length.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import av
import numpy as np

from emolib.errors import MediaError
from emolib.media.container import Timeline, open_media, scan, video_stream
from emolib.media.sampling import clip_rng, segment_times, shown_at, uniform_times

__all__ = [
    "Frame",
    "Frames",
    "VideoInfo",
    "clip_rng",
    "picture_sha",
    "probe",
    "read_frames",
    "sample_frames",
    "segment_times",
    "shown_at",
    "uniform_times",
]

Rule = Literal["segments", "uniform"]

# Pictures that are cheaper to decode and drop than to jump over (a jump empties the decoder).
SHORT_WAY = 24
# Larger pictures are a broken or hostile header: 2**27 pixels are 400 MB as RGB.
MAX_PIXELS = 2**27
# Codecs whose non-reference pictures may be left undecoded without touching any other.
# (Not HEVC: there "non-reference" holds within one temporal layer only.)
DROPPABLE = ("h264", "mpeg4", "mpeg2video")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        path: The file.
        start_s: When its first frame is shown, seconds; often, not always, 0.
        duration_s: From the first frame's start to the last frame's end, seconds.
        n_frames: Frames really in the file.
        fps: Frames a second on average.
        width: Pixels, upright.
        height: Pixels, upright.
        rotation: Degrees the stored picture is turned clockwise to stand upright.
        codec: libav's name, e.g. "h264".
        has_audio: There is an audio track (it may still be silent).
        cut: The file ends before all the frames it announces.
    """

    path: Path
    start_s: float
    duration_s: float
    n_frames: int
    fps: float
    width: int
    height: int
    rotation: int
    codec: str
    has_audio: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video.

    Attributes:
        image: uint8 RGB [height, width, 3], upright. Do not write into it: a frame asked for
            twice is the same array.
        pts_s: When the video starts to show it, seconds on the file's own clock.
        sha: First 32 hex digits of the SHA-256 over size and pixels.
    """

    image: np.ndarray
    pts_s: float
    sha: str


@dataclass(frozen=True, slots=True)
class Frames(Sequence[Frame]):
    """The frames of one clip, one for each time asked for, in that order.

    Attributes:
        path: The file.
        frames: The frames; the same one several times when the clip has fewer.
        times: The moments asked for, seconds on the file's clock.
        distinct: How many different moments of the video they show.
    """

    path: Path
    frames: tuple[Frame, ...]
    times: tuple[float, ...]
    distinct: int

    @property
    def images(self) -> tuple[np.ndarray, ...]:
        """The pictures alone, uint8 RGB [height, width, 3] each."""
        return tuple(frame.image for frame in self.frames)

    @property
    def record(self) -> dict[str, object]:
        """What to write down beside an answer: times, hashes, count of different frames."""
        return {
            "pts_s": [round(frame.pts_s, 6) for frame in self.frames],
            "sha": [frame.sha for frame in self.frames],
            "distinct": self.distinct,
        }

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Frame, ...]: ...

    def __getitem__(self, index: int | slice) -> Frame | tuple[Frame, ...]:
        return self.frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)


def probe(path: Path) -> VideoInfo:
    """Describe a video: list all its frames' times, decode only the first frame.

    Raises:
        MediaError: not a readable video with at least one frame; names the file and the cause.
    """
    path = Path(path)
    with open_media(path) as container:
        has_audio = bool(container.streams.audio)
        video = _Video(container, path)
        line = video.timeline
        first = video.read([int(line.ticks[0])])
        duration = line.seconds(line.end - int(line.ticks[0]))
        height, width = first[0].image.shape[:2]
        return VideoInfo(
            path=path,
            start_s=line.seconds(int(line.ticks[0])),
            duration_s=duration,
            n_frames=len(line.ticks),
            fps=len(line.ticks) / duration if duration > 0 else 0.0,
            width=width,
            height=height,
            rotation=video.rotation,
            codec=video.stream.codec_context.name,
            has_audio=has_audio,
            cut=line.cut,
        )


def read_frames(path: Path, times: Sequence[float] | np.ndarray) -> Frames:
    """Read the frames shown at ``times``.

    Args:
        path: The video.
        times: Seconds on the file's own clock (its first frame may not be at 0), in any order.
            Before the first frame counts as the first, after the last as the last.

    Raises:
        MediaError: not a readable video, or a wanted frame is in a part that is missing or
            damaged; the message says how much could be read.
        ValueError: a time is not finite.
    """
    path = Path(path)
    with open_media(path) as container:
        return _at(_Video(container, path), [float(t) for t in times])


def sample_frames(
    path: Path, n: int = 6, *, rule: Rule = "segments", seed: int = 0, name: str = ""
) -> Frames:
    """Read ``n`` frames spread over a whole clip.

    Args:
        path: The video.
        n: How many. A clip with fewer frames gives some of them several times; see
            :attr:`Frames.distinct`.
        rule: "segments": the paper's, one random frame of each of ``n`` equal parts;
            "uniform": the middles of the parts.
        seed: Of "segments".
        name: The clip's name, which with ``seed`` fixes the random moments whatever the order
            of the clips; "" = the file's name without suffix.

    Raises:
        MediaError: not a readable video, or only part of it is there: frames of a part would
            pass for frames of the whole. :func:`read_frames` still reads what is left.
        ValueError: ``n`` below 1 or an unknown rule.

    Source: arXiv 2408.11286, section 2.1.
    """
    path = Path(path)
    if rule not in ("segments", "uniform"):
        raise ValueError(f"rule {rule!r}: choose 'segments' or 'uniform'")
    with open_media(path) as container:
        video = _Video(container, path)
        line = video.timeline
        if line.cut:
            raise MediaError(
                f"{path}: the file is cut short: {video.count} could be read, up to "
                f"{line.seconds(line.end):.2f} s"
            )
        start = line.seconds(int(line.ticks[0]))
        duration = line.seconds(line.end) - start
        if rule == "uniform":
            times = uniform_times(start, duration, n)
        else:
            times = segment_times(start, duration, n, rng=clip_rng(seed, name or path.stem))
        return _at(video, times.tolist())


def _at(video: _Video, times: list[float]) -> Frames:
    line = video.timeline
    if not all(math.isfinite(t) for t in times):
        raise ValueError(f"times must be finite numbers of seconds, got {times}")
    asked = [line.tick(t) for t in times]
    if line.cut and (late := [t for t, tick in zip(times, asked, strict=True) if tick >= line.end]):
        raise MediaError(
            f"{video.path}: the file is cut short: {video.count} could be read, up to "
            f"{line.seconds(line.end):.2f} s, nothing at {late[0]:.2f} s"
        )
    frames = tuple(video.read(asked))
    distinct = len({frame.pts_s for frame in frames})
    return Frames(video.path, frames, tuple(times), distinct)


class _Damaged(Exception):
    """A wanted picture depends on one that cannot be decoded; the argument is its tick."""


class _Video:
    """An open video with its timeline; reads pictures by tick."""

    def __init__(self, container: Any, path: Path) -> None:
        self.container = container
        self.path = path
        self.rotation = 0
        self.stream = video_stream(container, path)
        codec = self.stream.codec_context
        if codec.width * codec.height > MAX_PIXELS:
            raise MediaError(f"{path}: {codec.width} x {codec.height} pixels is not believable")
        self.timeline: Timeline = scan(container, self.stream, path)
        _set_threads(self.stream)

    @property
    def count(self) -> str:
        """How many frames are there, in words."""
        line = self.timeline
        promised = f" of {line.promised}" if line.promised > len(line.ticks) else ""
        return f"{len(line.ticks)}{promised} frames"

    def read(self, asked: list[int]) -> list[Frame]:
        """Give the frame on screen at each of the ticks ``asked``."""
        ticks = self.timeline.ticks
        wanted = [int(ticks[k]) for k in shown_at(ticks, asked)]
        found: dict[int, Frame] = {}
        try:
            if self.timeline.exact:
                self._jump(sorted(set(wanted)), found)
            if len(found) < len(set(wanted)):
                # Not every stored picture is a shown one (hidden and half pictures), or the
                # file cannot be searched: watch it from the start.
                found = {}
                self._watch(sorted(set(wanted)), found)
        except _Damaged as damage:
            at = self.timeline.seconds(damage.args[0])
            raise MediaError(
                f"{self.path}: damaged: {len(found)} of the {len(set(wanted))} frames asked for "
                f"could be read, not the one at {at:.2f} s"
            ) from None
        return [found[tick] for tick in wanted]

    def _jump(self, wanted: list[int], found: dict[int, Frame]) -> None:
        """Decode from the key frame before each wanted picture, in as few runs as sensible."""
        line = self.timeline
        keys = [k for k, p in enumerate(line.packets) if p.key]
        runs: list[tuple[int, set[int]]] = []
        last = -1
        for position in sorted(line.position[tick] for tick in wanted):
            key = self._key_before(keys, position)
            if key is None:
                return
            if not runs or key - last > SHORT_WAY:
                runs.append((key, set()))
            runs[-1][1].add(position)
            last = position
        for key, positions in runs:
            if not self._run(key, positions, keys, found):
                return

    def _key_before(self, keys: list[int], position: int) -> int | None:
        """Stored position of the key frame from which ``position`` can be decoded.

        Pictures stored after a key frame but shown before it may lean on the group before.
        """
        packets = self.timeline.packets
        for key in reversed(keys[: bisect_right(keys, position)]):
            if (packets[key].pts or 0) <= (packets[position].pts or 0):
                return key
        return None

    def _run(self, key: int, wanted: set[int], keys: list[int], found: dict[int, Frame]) -> bool:
        """Decode forward from stored position ``key`` until all of ``wanted`` are out.

        Returns:
            False when the file could not be searched or a picture never came out.
        """
        line = self.timeline
        codec = self.stream.codec_context
        first_shown = line.packets[key].pts or 0
        self.container.seek(first_shown, stream=self.stream, backward=True)
        missing = set(wanted)
        damage: list[int] = []
        here = -1
        for packet in self.container.demux(self.stream):
            if packet.size:
                stored = line.position.get(packet.pts)
                if stored is None:
                    continue  # the piece at the end of a cut file
                if here < 0:
                    if stored > key:
                        return False
                    if not line.packets[stored].key:
                        continue
                here = stored
                skip = codec.name in DROPPABLE and here not in missing
                codec.skip_frame = "NONREF" if skip else "DEFAULT"
            try:
                pictures = packet.decode()
            except av.FFmpegError:
                damage.append(here)
                continue
            for picture in pictures:
                out = line.position.get(picture.pts, -1)
                # Shown before the key frame we started from: may lean on what we left out.
                if picture.is_corrupt and (picture.pts or 0) >= first_shown:
                    damage.append(out)
                if out in missing:
                    since = self._key_before(keys, out) or 0
                    if any(d >= since for d in damage):
                        raise _Damaged(picture.pts)
                    found[picture.pts] = self._keep(picture, line.seconds(picture.pts))
                    missing.discard(out)
            if not missing:
                return True
        if missing and damage:
            raise _Damaged(line.packets[min(missing)].pts)
        return False

    def _watch(self, wanted: list[int], found: dict[int, Frame]) -> None:
        """Decode everything from the start, keeping what is on screen at each wanted tick."""
        line = self.timeline
        waiting = list(wanted)
        before: tuple[Any, int] | None = None
        broken = False
        with open_media(self.path) as container:
            stream = container.streams[self.stream.index]
            _set_threads(stream)
            for number, picture in enumerate(_pictures(container, stream)):
                if picture is None or (picture.is_corrupt and before is not None):
                    broken = True
                    break
                if picture.is_corrupt:
                    continue  # a recording that starts in the middle of a group of pictures
                tick = (
                    picture.pts if line.exact else int(line.ticks[min(number, len(line.ticks) - 1)])
                )
                if tick is None:
                    continue
                while waiting and tick > waiting[0]:
                    shown, at = before or (picture, tick)
                    found[waiting.pop(0)] = self._keep(shown, line.seconds(at))
                if not waiting:
                    return
                before = (picture, tick)
        if before is None:
            raise MediaError(f"{self.path}: not one of its {self.count} can be decoded")
        if waiting and broken:
            raise _Damaged(waiting[0])
        last = self._keep(before[0], line.seconds(before[1])) if waiting else None
        found.update({tick: last for tick in waiting if last is not None})

    def _keep(self, picture: Any, seconds: float) -> Frame:
        """Turn a decoded picture into an upright RGB frame."""
        image = picture.to_ndarray(format="rgb24", threads=1)
        image, self.rotation = _upright(image, picture)
        return Frame(image, seconds, picture_sha(image))


def picture_sha(image: np.ndarray) -> str:
    """Hash size and pixels of uint8 [height, width, 3]: 32 hex digits."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


def _set_threads(stream: Any) -> None:
    """Decode with few threads: several clips side by side use a machine better."""
    stream.thread_type = "SLICE"
    stream.codec_context.thread_count = 2


def _pictures(container: Any, stream: Any) -> Iterator[Any]:
    """Decode in order; gives None where something cannot be decoded after the first picture."""
    started = False
    for packet in container.demux(stream):
        try:
            pictures = packet.decode()
        except av.FFmpegError:
            if started:
                yield None
            continue
        for picture in pictures:
            started = True
            yield picture


def _upright(image: np.ndarray, picture: Any) -> tuple[np.ndarray, int]:
    """Turn and mirror as the file's display matrix says; give the clockwise degrees too.

    The matrix's upper left part (a, b; c, d) moves the stored point (x, y) to
    (a x + c y, b x + d y), y pointing down. Angles between right angles are left alone.
    """
    if "DISPLAYMATRIX" not in picture.side_data:
        return image, 0
    m = np.frombuffer(picture.side_data["DISPLAYMATRIX"], dtype="<i4")
    a, b, c, d = (int(np.sign(m[k])) if abs(m[k]) > 2**15 else 0 for k in (0, 1, 3, 4))
    straight = a and d and not (b or c)
    turned = b and c and not (a or d)
    if not (straight or turned):
        return image, 0
    right, down = (a, d) if straight else (c, b)
    if turned:
        image = image.transpose(1, 0, 2)
    image = np.ascontiguousarray(image[::down, ::right])
    degrees = {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[(a, b)]
    return image, degrees
