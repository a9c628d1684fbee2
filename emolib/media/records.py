"""What is known of a video, and its frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from emolib.media.reader import Frame


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
class Sound:
    """An audio track as it was recorded.

    Attributes:
        samples: float32 [channels, samples] in [-1, 1].
        rate: Samples a second.
    """

    samples: np.ndarray
    rate: int


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
