"""The decoding behind :mod:`emolib.media.video`: jump to key frames, drop what is not needed."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from emolib.errors import MediaError
from emolib.media.container import Timeline, open_media, scan, video_stream
from emolib.media.sampling import shown_at

# Pictures that are cheaper to decode and drop than to jump over (a jump empties the decoder).
SHORT_WAY = 24
# Larger pictures are a broken or hostile header: 2**27 pixels are 400 MB as RGB.
MAX_PIXELS = 2**27
# Codecs whose non-reference pictures may be left undecoded without touching any other.
# (Not HEVC: there "non-reference" holds within one temporal layer only.)
DROPPABLE = ("h264", "mpeg4", "mpeg2video")


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


class Damaged(Exception):
    """A wanted picture depends on one that cannot be decoded; the argument is its tick."""


class VideoReader:
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
        except Damaged as damage:
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
                        raise Damaged(picture.pts)
                    found[picture.pts] = self._keep(picture, line.seconds(picture.pts))
                    missing.discard(out)
            if not missing:
                return True
        if missing and damage:
            raise Damaged(line.packets[min(missing)].pts)
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
            raise Damaged(waiting[0])
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
