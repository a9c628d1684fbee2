"""What a data set looks like: label frequencies, durations, a gallery of clips."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emolib.datasets.clip import Clip


def label_frequencies(clips: Sequence[Clip], ax: Axes, *, top: int = 25) -> Axes:
    """Bar of the most frequent gold labels, most frequent at the top."""
    counts = Counter(label for clip in clips for label in clip.labels or ())
    rows = counts.most_common(top)[::-1]
    if not rows:
        return nothing(ax, "no labels")
    ax.barh([label for label, _ in rows], [n for _, n in rows], color="C0")
    ax.set(xlabel="clips", title=f"{len(counts)} different labels, the {len(rows)} most frequent")
    ax.margins(y=0.01)
    return ax


def durations(seconds: Sequence[float], ax: Axes) -> Axes:
    """Histogram of clip durations in seconds."""
    if not seconds:
        return nothing(ax, "no durations")
    ax.hist(seconds, bins=min(30, max(5, len(seconds) // 3)), color="C0")
    ax.set(xlabel="duration (s)", ylabel="clips", title=f"median {np.median(seconds):.1f} s")
    return ax


def nothing(ax: Axes, text: str) -> Axes:
    """Say in place of a figure why there is none."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    ax.set_axis_off()
    return ax


def gallery(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    height: float = 1.9,
) -> Figure:
    """One row of frames a clip, its words and labels above it.

    Args:
        rows: For each clip uint8 RGB frames [height, width, 3].
        titles: One text a row.
        height: Of one row, in inches; a picture is about as wide.
    """
    columns = max((len(row) for row in rows), default=1)
    figure = Figure(figsize=(height * columns, height * max(1, len(rows))))
    # A fixed grid: automatic layouts widen the first column to the length of its title.
    grid = {"wspace": 0.04, "hspace": 0.2}
    axes = figure.subplots(max(1, len(rows)), columns, squeeze=False, gridspec_kw=grid)
    for ax in axes.flat:
        ax.set_axis_off()
    if not rows:
        nothing(axes[0, 0], "no clips shown")
    for line, (row, title) in enumerate(zip(rows, titles, strict=True)):
        for column, image in enumerate(row):
            axes[line, column].imshow(image)
        axes[line, 0].set_title(
            textwrap.shorten(title, 34 * columns, placeholder=" …"), loc="left", fontsize=8
        )
    return figure


def clip_title(clip: Clip, extra: str = "") -> str:
    """Name, words and labels of a clip on one line."""
    words = f"“{clip.subtitle}”" if clip.subtitle else "(no words)"
    labels = ", ".join(clip.labels) if clip.labels else "no labels"
    return f"{clip.name}  {words}  [{labels}]{'  ' + extra if extra else ''}"


def frame_rows(clips: Sequence[Clip], frames: int, seed: int) -> list[list[Any]]:
    """Sampled frames of each clip for :func:`gallery`; a broken clip gives an empty row."""
    from emolib.errors import MediaError
    from emolib.media.video import sample_frames

    rows: list[list[Any]] = []
    for clip in clips:
        try:
            sample = sample_frames(clip.video, frames, rule="uniform", seed=seed, name=clip.name)
            rows.append([frame.image for frame in sample.frames])
        except MediaError:
            rows.append([])
    return rows
