"""Cut the face out of each frame: detect, choose, align, and say what was found.

A frame without a face is never an error and never dropped: it gives the whole frame and says
so, since frames that vanish would bias a comparison of face against whole image. Report
:func:`face_record` beside every such result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emolib.media.detectors import (
    Box,
    Detector,
    Face,
    Point,
    detect_all,
    open_detector,
    shared_detector,
)
from emolib.media.video import Frame
from emolib.params.media import FaceParams

__all__ = ["FaceCrop", "FaceParams", "crop_face", "crop_faces", "face_record", "open_detector"]


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """A face cut out of one frame, or the frame itself.

    Attributes:
        image: uint8 RGB [size, size, 3]; with ``missing: frame`` and no face the frame as it is.
        found: A face was found; else ``image`` shows the whole frame.
        aligned: Both eyes were found and brought to their places; else the crop is an
            upright square around the face box.
        box: The face's left, top, right, bottom in the frame, pixels, or None.
        score: The detector's score of that face; 0 when there is none.
        n_faces: Faces in the frame.
        source_px: Side of the square of the frame that the crop shows, pixels; 0 when no
            face. Below ``size`` the crop is enlarged and holds no more detail than this.
    """

    image: np.ndarray
    found: bool
    aligned: bool
    box: Box | None
    score: float
    n_faces: int
    source_px: float


def crop_faces(
    frames: Iterable[Frame | np.ndarray], params: FaceParams, detector: Detector | None = None
) -> list[FaceCrop]:
    """Cut one face out of every frame of a clip, the same person's as far as can be told.

    The first face follows ``params.choose``; later ones the face nearest to the one before,
    if it lies within one face's width of it, else ``params.choose`` again.

    Args:
        frames: In time order; :class:`Frame` or uint8 RGB [height, width, 3].
        params: How.
        detector: From :func:`open_detector`; None takes the thread's own, opened once.

    Returns:
        One crop a frame, in the same order.
    """
    images = [frame.image if isinstance(frame, Frame) else frame for frame in frames]
    crops: list[FaceCrop] = []
    last: Face | None = None
    found = detect_all(detector or shared_detector(params), images)
    for image, faces in zip(images, found, strict=True):
        face = _choose(faces, image.shape, params, last)
        crops.append(crop_face(image, face, params, n_faces=len(faces)))
        last = face or last
    return crops


def crop_face(
    image: np.ndarray, face: Face | None, params: FaceParams, *, n_faces: int = 1
) -> FaceCrop:
    """Cut ``face`` out of ``image`` (uint8 RGB [height, width, 3]); None gives the whole frame.

    With eyes, a similarity transform (turn, scale, shift) brings them to
    ``params.eye_height`` and ``params.eye_distance``; what lies outside the frame is black.
    """
    if face is None:
        whole = _letterbox(image, params.size) if params.missing == "letterbox" else image
        return FaceCrop(whole, False, False, None, 0.0, 0, 0.0)
    size = params.size
    border = cv2.BORDER_CONSTANT
    if face.eyes is not None:
        matrix = _eye_transform(face.eyes, params)
    else:
        side = min(params.margin * face.side, *image.shape[:2])
        x, y = (
            float(np.clip(centre - side / 2, 0, length - side))
            for centre, length in zip(face.centre, image.shape[1::-1], strict=True)
        )
        scale = size / side
        border = cv2.BORDER_REPLICATE  # the square lies inside; only interpolation looks out
        matrix = np.array([[scale, 0, -scale * x], [0, scale, -scale * y]])
    source = size / float(np.hypot(matrix[0, 0], matrix[1, 0]))
    cut = _warp(image, matrix, size, border)
    return FaceCrop(cut, True, face.eyes is not None, face.box, face.score, n_faces, source)


def face_record(crops: Sequence[FaceCrop]) -> dict[str, object]:
    """Count what was found in a clip, to be written beside every result on crops.

    Returns:
        ``frames``, ``found``, ``aligned``, ``several`` (frames with more than one face), all
        counts; ``median_source_px``: side of the cut squares, pixels, 0 without a face.
    """
    sides = [crop.source_px for crop in crops if crop.found]
    return {
        "frames": len(crops),
        "found": len(sides),
        "aligned": sum(crop.aligned for crop in crops),
        "several": sum(crop.n_faces > 1 for crop in crops),
        "median_source_px": round(float(np.median(sides)), 1) if sides else 0.0,
    }


def _choose(
    faces: Sequence[Face], shape: tuple[int, ...], params: FaceParams, last: Face | None
) -> Face | None:
    if not faces:
        return None
    if last is not None:
        near = min(faces, key=lambda face: _apart(face.centre, last.centre))
        alike = 0.5 < near.side / max(last.side, 1e-9) < 2
        if alike and _apart(near.centre, last.centre) < last.side:
            return near
    # Two eyes are a second witness: a patch of background seldom has them.
    sure = [face for face in faces if face.eyes is not None] or list(faces)
    if params.choose == "central":
        middle = shape[1] / 2, shape[0] / 2
        return min(sure, key=lambda face: _apart(face.centre, middle))
    return max(sure, key=lambda face: face.side)


def _apart(a: Point, b: Point) -> float:
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))


def _eye_transform(eyes: tuple[Point, Point], params: FaceParams) -> np.ndarray:
    """Give the similarity [2, 3] that maps both eyes to their places in the crop."""
    (ax, ay), (bx, by) = eyes
    a, b = complex(ax, ay), complex(bx, by)
    to_a = params.size * complex((1 - params.eye_distance) / 2, params.eye_height)
    to_b = params.size * complex((1 + params.eye_distance) / 2, params.eye_height)
    turn = (to_b - to_a) / (b - a)
    shift = to_a - turn * a
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _warp(image: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """Apply ``matrix`` [2, 3]; the picture is averaged down first so that detail cannot alias.

    Coordinates count from the picture's corner: pixel k covers [k, k + 1).
    """
    linear, shift = matrix[:, :2], matrix[:, 2]
    scale = float(np.hypot(linear[0, 0], linear[1, 0]))
    height, width = image.shape[:2]
    way = cv2.INTER_CUBIC
    if scale < 1:
        small = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        linear = linear * np.array([width / small[0], height / small[1]])
        way = cv2.INTER_LINEAR
    # OpenCV counts from the middle of the first pixel.
    shift = linear @ np.array([0.5, 0.5]) + shift - 0.5
    matrix = np.column_stack([linear, shift])
    return cv2.warpAffine(image, matrix, (size, size), flags=way, borderMode=border)


def _letterbox(image: np.ndarray, size: int) -> np.ndarray:
    """Fit the whole picture into a black square of side ``size``, its shape kept."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    square = np.zeros((size, size, 3), np.uint8)
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    fitted = cv2.resize(image, inner, interpolation=way)
    square[top : top + inner[1], left : left + inner[0]] = fitted
    return square
