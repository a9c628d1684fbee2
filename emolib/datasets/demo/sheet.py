"""A contact sheet: one frame of each clip with its words and labels."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import MediaError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def contact_sheet(clips: Sequence[Clip], axes: Iterable[Axes], at: float = 0.6) -> list[Axes]:
    """Show one frame a clip, its subtitle above and its labels below; never saves.

    Args:
        clips: Of any data set.
        axes: One for each clip, e.g. ``plt.subplots(3, 4)[1].flat``; those left over are
            switched off.
        at: Which frame, as a fraction of the clip in [0, 1].

    Raises:
        MediaError: a video cannot be decoded.
    """
    panels = list(axes)
    for panel in panels:
        panel.set_axis_off()
    for panel, clip in zip(panels, clips, strict=False):
        panel.imshow(frame_at(clip.video, at))
        words = f"“{clip.subtitle}”" if clip.subtitle else "(no words)"
        panel.set_title("\n".join(textwrap.wrap(words, 30)), fontsize=8)
        labels = ", ".join(clip.labels) if clip.labels else "(no labels)"
        panel.text(
            0.5,
            -0.02,
            "\n".join(textwrap.wrap(labels, 30)),
            transform=panel.transAxes,
            ha="center",
            va="top",
            fontsize=8,
        )
    return panels


def frame_at(video: Path, at: float) -> np.ndarray:
    """Decode the frame at a fraction of a clip, uint8 [height, width, 3], red-green-blue.

    Cost: decodes the whole (short) clip.

    Raises:
        MediaError: the file cannot be decoded or has no picture.
    """
    import av

    try:
        with av.open(str(video)) as container:
            images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (OSError, IndexError, av.error.FFmpegError) as error:
        raise MediaError(f"{video}: no picture can be decoded: {error}") from error
    if not images:
        raise MediaError(f"{video}: no picture in it")
    return np.asarray(images[min(len(images) - 1, int(at * len(images)))])
