"""The face in place of the whole picture: what the design of 2025 looks at by default."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.files import write_atomic
from emolib.hashing import key_of, sha_file
from emolib.media.faces import crop_faces, open_detector
from emolib.models.affectgpt.media import FRAMES, read_clip, sound_file
from emolib.params.media import FaceParams
from emolib.progress import track


def shown_clips(
    clips: Sequence[Clip],
    view: Literal["whole", "face"],
    face: FaceParams,
    folder: Path,
    frames: int = 8,
) -> tuple[list[Clip], dict[str, int]]:
    """The clips as they are, or the face cut out of the frames a model sees of every one.

    A frame without a face gives what ``face.missing`` says; the counts tell how many. A clip that
    cannot be read stays as it is, so that whoever uses it next says what is wrong with it.

    Args:
        clips: With videos.
        view: "whole" changes nothing and counts nothing.
        face: How faces are cut out.
        folder: Where crops are kept, by content of the video: nothing is cut twice.
        frames: Frames a model sees of a clip.

    Returns:
        The clips, with "face" each with its crops as video and its sound as before; and the
        counts ``clips``, ``frames``, ``found``. Cost: one detection a frame, 10 to 100 ms.
    """
    if view == "whole":
        return list(clips), {}
    detector = open_detector(face)
    settings = face.model_dump(mode="json")
    made: list[Clip] = []
    counts = {"clips": 0, "frames": 0, "found": 0}
    for clip in track(clips, "faces"):
        try:
            key = key_of(video=sha_file(clip.video), frames=frames, face=settings)
            file = folder / key[:2] / f"{key}{FRAMES}"
            found = folder / key[:2] / f"{key}.found{FRAMES}"
            sound = sound_file(clip)
            if not (file.is_file() and found.is_file()):
                crops = crop_faces(read_clip(clip.video, frames), face, detector)
                _keep(found, np.array([crop.found for crop in crops]))
                _keep(file, np.stack([crop.image for crop in crops]))
        except (MediaError, OSError):
            made.append(clip)
            continue
        seen = np.load(found, allow_pickle=False)
        counts["clips"] += 1
        counts["frames"] += len(seen)
        counts["found"] += int(seen.sum())
        made.append(replace(clip, video=file, audio=sound))
    return made, counts


def _keep(path: Path, array: np.ndarray) -> None:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    write_atomic(path, data.getvalue())
