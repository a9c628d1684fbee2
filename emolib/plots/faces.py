"""What the face crop does to the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emolib.ablation import PartResult
from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.media.faces import crop_faces
from emolib.media.video import sample_frames
from emolib.params.media import FaceParams
from emolib.plots.data import gallery, nothing


def crops_gallery(clips: Sequence[Clip], frames: int, seed: int, face: FaceParams) -> Figure:
    """Two rows a clip: its frames, and below them the crops with what was found.

    A clip that cannot be read is left out.
    """
    rows, titles = [], []
    for clip in clips:
        try:
            sample = sample_frames(clip.video, frames, rule="segments", seed=seed, name=clip.name)
        except MediaError:
            continue
        images = [frame.image for frame in sample.frames]
        crops = crop_faces(images, face)
        found = sum(crop.found for crop in crops)
        rows += [images, [crop.image for crop in crops]]
        titles += [clip.name, f"face found in {found} of {len(crops)} frames"]
    return gallery(rows, titles, height=1.5)


def face_sizes(sizes: Mapping[str, float], bounds: Sequence[float], crop: int, ax: Axes) -> Axes:
    """How many pixels of the video the crops hold, with the bounds between small and large.

    Args:
        sizes: Side of the cut square by clip, pixels (:func:`emolib.ablation.face_sizes`).
        bounds: Drawn as lines.
        crop: Side of the crop shown to the model: smaller faces are enlarged.
        ax: Where to draw.
    """
    if not sizes:
        return nothing(ax, "no face found in any clip")
    ax.hist(list(sizes.values()), bins=min(30, 5 + len(sizes) // 5), color="0.75")
    for bound in bounds:
        ax.axvline(bound, color="C0", linewidth=1)
    ax.axvline(crop, color="C3", linestyle="--", linewidth=1, label=f"the crop's own side, {crop}")
    ax.set(xlabel="side of the cut square (pixels of the video)", ylabel="clips")
    ax.legend(fontsize=8)
    return ax


def differences(results: Sequence[PartResult], pair: str, ax: Axes) -> Axes:
    """A paired difference in Avg within every part of the clips, with its 95 % interval.

    Args:
        results: From :func:`emolib.ablation.by_part`.
        pair: Which difference, "whole - face".
        ax: Where to draw.
    """
    shown = [part for part in results if pair in part.differences]
    if not shown:
        return nothing(ax, "too few clips")
    kinds = list(dict.fromkeys(part.by for part in shown))
    for row, part in enumerate(shown):
        found, color = part.differences[pair], f"C{kinds.index(part.by)}"
        ax.plot(found["ci95"], [row, row], color=color, linewidth=2, alpha=0.6)
        ax.plot(found["avg"], row, "o", color=color)
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_yticks(range(len(shown)), [f"{part.name} (n={part.n})" for part in shown], fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel=f"Avg, {pair}", title=pair)
    return ax
