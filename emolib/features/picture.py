"""Statistics of pictures: colour, light, edges, and the shape of the face. No learned weights.

Each frame gives :data:`NAMES`: the whole picture's colours and edges, where the face is, and
inside the aligned face crop a coarse picture of its light and of the directions of its edges
(Dalal and Triggs's histograms of oriented gradients), in which an expression leaves its marks.

Cost: about 2 ms a frame; finding the face (:mod:`emolib.media.faces`) costs ten times as much.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from emolib.media.faces import FaceCrop

SIDE = 64  # pixels of the square a face crop is brought to
_SMALL = 96  # longer side at which whole pictures are measured
_CELLS, _BINS = 6, 8
_LIGHT = 6

_WHOLE = (
    *("red", "green", "blue", "red_sd", "green_sd", "blue_sd", "brightness", "contrast"),
    *("saturation", "colourfulness", "warmth", "edges", "edges_sd", "dark_share", "bright_share"),
    *(f"light_{part}" for part in ("top", "bottom", "left", "right", "centre")),
)
_FACE = (
    *("face_found", "face_aligned", "face_x", "face_y", "face_side", "faces"),
    *("skin_red", "skin_brightness", "skin_contrast"),
    *(f"face_light_{k}" for k in range(_LIGHT * _LIGHT)),
    *(f"face_edge_{k}" for k in range(_CELLS * _CELLS * _BINS)),
)
NAMES = (*_WHOLE, *_FACE, "motion", "face_motion")


def picture_frames(images: Sequence[np.ndarray], crops: Sequence[FaceCrop]) -> np.ndarray:
    """Describe the frames of one clip.

    Args:
        images: uint8 RGB [height, width, 3] each, in time order, at least one.
        crops: The face crop of each, from :func:`emolib.media.faces.crop_faces`.

    Returns:
        float32 [frames, 355], columns :data:`NAMES`, finite, all in [-1, 1] but ``warmth``
        and ``faces`` (a count). Without a face its columns are 0.

    Raises:
        ValueError: no frame, or another number of crops.
    """
    if not images or len(images) != len(crops):
        raise ValueError(f"{len(images)} images and {len(crops)} crops: give one crop an image")
    small = [_shrink(image) for image in images]
    faces = [_face_square(crop) for crop in crops]
    rows = []
    for k, (image, crop) in enumerate(zip(small, crops, strict=True)):
        row = [*_whole(image), *_face(crop, faces[k], images[k].shape)]
        motion = _moved(small[k - 1], image) if k else 0.0
        now, before = faces[k], faces[k - 1] if k else None
        face_motion = _moved(before, now) if now is not None and before is not None else 0.0
        rows.append([*row, motion, face_motion])
    return np.asarray(rows, dtype=np.float32)


def picture_features(table: np.ndarray) -> np.ndarray:
    """Pool frames of one clip: mean and deviation of every column.

    Args:
        table: float32 [frames, columns] of :func:`picture_frames`.

    Returns:
        float32 [2 * columns], means first.
    """
    return np.concatenate([table.mean(axis=0), table.std(axis=0)]).astype(np.float32)


def _shrink(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = _SMALL / max(height, width)
    size = max(4, round(width * scale)), max(4, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float64) / 255


def _face_square(crop: FaceCrop) -> np.ndarray | None:
    """The crop as float64 [64, 64, 3] in [0, 1], or None without a face."""
    if not crop.found:
        return None
    return cv2.resize(crop.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) / 255.0


def _grey(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])


def _whole(image: np.ndarray) -> list[float]:
    grey = _grey(image)
    flat = image.reshape(-1, 3)
    mean, deviation = flat.mean(axis=0), flat.std(axis=0)
    saturation = image.max(axis=2) - image.min(axis=2)
    opponent = flat[:, 0] - flat[:, 1], (flat[:, 0] + flat[:, 1]) / 2 - flat[:, 2]
    colourful = np.hypot(opponent[0].std(), opponent[1].std())
    edges = np.hypot(*np.gradient(grey))
    height, width = grey.shape
    middle = grey[height // 4 : height - height // 4, width // 4 : width - width // 4]
    regions = grey[: height // 2], grey[height // 2 :], grey[:, : width // 2], grey[:, width // 2 :]
    return [
        *mean.tolist(),
        *deviation.tolist(),
        float(grey.mean()),
        float(grey.std()),
        float(saturation.mean()),
        float(colourful),
        float(np.log((mean[0] + 0.05) / (mean[2] + 0.05))),
        float(edges.mean()),
        float(edges.std()),
        float((grey < 0.15).mean()),
        float((grey > 0.85).mean()),
        *(float(region.mean() - grey.mean()) for region in (*regions, middle)),
    ]


def _face(crop: FaceCrop, square: np.ndarray | None, shape: tuple[int, ...]) -> list[float]:
    if square is None or crop.box is None:
        return [0.0] * len(_FACE)
    left, top, right, bottom = crop.box
    height, width = shape[:2]
    shorter = min(height, width)
    grey = _grey(square)
    skin = square[SIDE // 4 : -SIDE // 8, SIDE // 5 : -SIDE // 5]
    total = skin.sum(axis=2) + 1e-6
    return [
        1.0,
        float(crop.aligned),
        float(np.clip((left + right) / 2 / width - 0.5, -1, 1)),
        float(np.clip((top + bottom) / 2 / height - 0.5, -1, 1)),
        float(np.clip((right - left + bottom - top) / 2 / shorter, 0, 1)),
        float(crop.n_faces),
        float((skin[..., 0] / total).mean()),
        float(_grey(skin).mean()),
        float(_grey(skin).std()),
        *_light(grey).tolist(),
        *_directions(grey).tolist(),
    ]


def _light(grey: np.ndarray) -> np.ndarray:
    """Brightness of 6 x 6 parts, free of level and contrast, in [-1, 1]."""
    parts = cv2.resize(grey, (_LIGHT, _LIGHT), interpolation=cv2.INTER_AREA).ravel()
    centred = parts - parts.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-6)


def _directions(grey: np.ndarray) -> np.ndarray:
    """Histograms of edge directions (8 bins of 22.5 degrees) in 6 x 6 cells, unit length."""
    down, right = np.gradient(cv2.GaussianBlur(grey, (0, 0), 1.0))
    strength = np.hypot(down, right)
    angle = np.mod(np.arctan2(down, right), np.pi) / np.pi * _BINS
    first = np.floor(angle).astype(int) % _BINS
    part = angle - np.floor(angle)
    cell = np.minimum(np.arange(SIDE) * _CELLS // SIDE, _CELLS - 1)
    where = (cell[:, None] * _CELLS + cell[None, :]) * _BINS
    table = np.zeros(_CELLS * _CELLS * _BINS)
    np.add.at(table, (where + first).ravel(), (strength * (1 - part)).ravel())
    np.add.at(table, (where + (first + 1) % _BINS).ravel(), (strength * part).ravel())
    table = np.minimum(table / max(float(np.linalg.norm(table)), 1e-6), 0.2)
    return table / max(float(np.linalg.norm(table)), 1e-6)


def _moved(before: np.ndarray, now: np.ndarray) -> float:
    return float(np.abs(_grey(now) - _grey(before)).mean())
