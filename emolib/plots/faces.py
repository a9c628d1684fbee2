"""What the face crop does to the frames."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.media.faces import crop_faces
from emolib.media.video import sample_frames
from emolib.params.media import FaceParams
from emolib.plots.data import gallery


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
