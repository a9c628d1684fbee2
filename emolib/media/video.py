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

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from emolib.errors import MediaError
from emolib.media.container import open_media
from emolib.media.reader import Frame, VideoReader, picture_sha
from emolib.media.records import Frames, VideoInfo
from emolib.media.sampling import clip_rng, segment_times, shown_at, uniform_times
from emolib.media.supervisor import active

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


def probe(path: Path) -> VideoInfo:
    """Describe a video: list all its frames' times, decode only the first frame.

    Raises:
        MediaError: not a readable video with at least one frame; names the file and the cause.
    """
    path = Path(path)
    if (workers := active()) is not None:
        return cast(VideoInfo, workers.call("probe", path))
    with open_media(path) as container:
        has_audio = bool(container.streams.audio)
        video = VideoReader(container, path)
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
    path, asked = Path(path), [float(t) for t in times]
    _check_finite(asked)
    if (workers := active()) is not None:
        return cast(Frames, workers.call("read_frames", path, times=asked))
    with open_media(path) as container:
        return _at(VideoReader(container, path), asked)


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
    if n < 1:
        raise ValueError(f"n = {n}: at least one frame")
    if (workers := active()) is not None:
        options = {"n": n, "rule": rule, "seed": seed, "name": name}
        return cast(Frames, workers.call("sample_frames", path, **options))
    with open_media(path) as container:
        video = VideoReader(container, path)
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


def _check_finite(times: list[float]) -> None:
    if not all(math.isfinite(t) for t in times):
        raise ValueError(f"times must be finite numbers of seconds, got {times}")


def _at(video: VideoReader, times: list[float]) -> Frames:
    line = video.timeline
    asked = [line.tick(t) for t in times]
    if line.cut and (late := [t for t, tick in zip(times, asked, strict=True) if tick >= line.end]):
        raise MediaError(
            f"{video.path}: the file is cut short: {video.count} could be read, up to "
            f"{line.seconds(line.end):.2f} s, nothing at {late[0]:.2f} s"
        )
    frames = tuple(video.read(asked))
    distinct = len({frame.pts_s for frame in frames})
    return Frames(video.path, frames, tuple(times), distinct)
