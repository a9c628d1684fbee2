"""Face detectors, and the one of OpenCV's cascades, which needs no download."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from emolib.errors import MissingModelError
from emolib.params.media import FaceParams

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a picture.

    Attributes:
        box: Left, top, right, bottom in pixels counted from the picture's corner; may reach past
            its edges.
        score: How sure the detector is, on its own scale; compare within one detector only.
        eyes: Centres (x, y) of the eye on the picture's left and on its right, or None.
    """

    box: Box
    score: float
    eyes: tuple[Point, Point] | None = None

    @property
    def side(self) -> float:
        """Mean of the box's width and height, pixels."""
        left, top, right, bottom = self.box
        return (right - left + bottom - top) / 2

    @property
    def centre(self) -> Point:
        """Middle of the box, pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


class Detector(Protocol):
    """Finds faces in one picture at a time. Not to be shared between threads."""

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of uint8 RGB [height, width, 3], largest first; [] when there is none."""
        ...


@runtime_checkable
class BatchDetector(Detector, Protocol):
    """A detector that is faster on several pictures at once."""

    def detect_many(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Find the faces of each picture, as :meth:`Detector.detect`."""
        ...


def detect_all(detector: Detector, images: Sequence[np.ndarray]) -> list[list[Face]]:
    """Find the faces of several pictures: in batches where the detector can, else one by one."""
    if isinstance(detector, BatchDetector):
        return detector.detect_many(images)
    return [detector.detect(image) for image in images]


def shared_detector(params: FaceParams) -> Detector:
    """The detector ``params`` names, opened once a thread and used for all its clips.

    Raises:
        MissingDependencyError: the package is not installed.
        MissingModelError: its weights are not on this machine and may not be fetched.
    """
    opened: dict[FaceParams, Detector] = _opened.__dict__.setdefault("by_params", {})
    if params not in opened:
        opened.clear()  # one set of weights in memory
        opened[params] = open_detector(params)
    return opened[params]


_opened = threading.local()


def open_detector(params: FaceParams) -> Detector:
    """Open the detector ``params`` names. Do it once and use it for many clips.

    Raises:
        MissingDependencyError: the package is not installed.
        MissingModelError: its weights are not on this machine and may not be fetched.
    """
    if params.detector == "haar":
        return HaarDetector(params)
    from emolib.media.landmarks import LandmarkDetector

    return LandmarkDetector(params)


# Tried in this order until one finds a face: (cascade, mirrored picture, degrees turned).
# The first is the surest; the others cost time only on frames where it finds nothing.
PASSES = (
    ("frontalface_default", False, 0),
    ("frontalface_alt", False, 0),
    ("frontalface_alt", False, 25),
    ("frontalface_alt", False, -25),
    ("profileface", False, 0),
    ("profileface", True, 0),
)
EYES = ("eye_tree_eyeglasses", "eye")
EYE_SIDE = 160  # pixels a face box is brought to before eyes are searched
EYE_HITS = 3  # overlapping hits an eye needs; the pair's geometry sorts out the rest


class HaarDetector:
    """Viola-Jones cascades from OpenCV's wheel: frontal, then tilted and profile faces, eyes.

    Cost grows with the pixels of a frame up to ``detect_side`` squared: about 20 ms at
    640 x 360 when the first pass finds a face, six times that when there is none.
    """

    def __init__(self, params: FaceParams) -> None:
        self.params = params
        names = {name for name, _, _ in PASSES} | set(EYES)
        self.cascades = {name: _cascade(name) for name in sorted(names)}

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find faces; see :meth:`Detector.detect`."""
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        scale = min(1.0, self.params.detect_side / max(height, width))
        small = grey
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        for name, mirrored, angle in PASSES:
            faces = self._pass(small, name, mirrored, angle)
            if faces:
                ratio = width / small.shape[1]
                boxes = [(tuple(ratio * v for v in box), score) for box, score in faces]
                found = [Face(box, score, self._eyes(grey, box)) for box, score in boxes]
                return sorted(found, key=lambda face: (-face.side, face.box))
        return []

    def _pass(
        self, grey: np.ndarray, name: str, mirrored: bool, angle: int
    ) -> list[tuple[Any, float]]:
        """Run one cascade over a mirrored and turned copy; give boxes in ``grey``'s pixels."""
        height, width = grey.shape
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        picture = cv2.warpAffine(grey, turn, (width, height)) if angle else grey
        if mirrored:
            picture = np.ascontiguousarray(picture[:, ::-1])
        least = max(20, round(self.params.min_face * min(height, width)))
        boxes, _, weights = self.cascades[name].detectMultiScale3(
            picture,
            scaleFactor=1.1,
            minNeighbors=self.params.neighbours,
            minSize=(least, least),
            outputRejectLevels=True,
        )
        back = cv2.invertAffineTransform(turn)
        found = []
        for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True):
            x = width - x - w if mirrored else x
            cx, cy = back @ np.array([x + w / 2, y + h / 2, 1.0])
            found.append(((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), float(weight)))
        return found

    def _eyes(self, grey: np.ndarray, box: Any) -> tuple[Point, Point] | None:
        """Find both eyes inside a face box of the full-size picture."""
        left, top = max(0, int(box[0])), max(0, int(box[1]))
        right, bottom = int(np.ceil(box[2])), int(np.ceil(box[3]))
        face = grey[top:bottom, left:right]
        side = box[2] - box[0]
        if min(face.shape) < 8:
            return None
        scale = EYE_SIDE / side
        shape = max(1, round(face.shape[1] * scale)), max(1, round(face.shape[0] * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        face = cv2.equalizeHist(cv2.resize(face, shape, interpolation=way))
        for name in EYES:
            boxes = self.cascades[name].detectMultiScale(
                face[: round(0.65 * EYE_SIDE)],
                scaleFactor=1.05,
                minNeighbors=EYE_HITS,
                minSize=(EYE_SIDE // 9, EYE_SIDE // 9),
                maxSize=(EYE_SIDE // 2, EYE_SIDE // 2),
            )
            centres = sorted(
                ((x + w / 2) / EYE_SIDE, (y + h / 2) / EYE_SIDE) for x, y, w, h in boxes
            )
            pair = _eye_pair(centres)
            if pair is not None:
                (ax, ay), (bx, by) = pair
                return (left + ax * side, top + ay * side), (left + bx * side, top + by * side)
        return None


def _cascade(name: str) -> Any:
    cascade = cv2.CascadeClassifier()
    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    file = Path(folder) / f"haarcascade_{name}.xml"
    if not (file.is_file() and cascade.load(str(file))):
        raise MissingModelError(
            f"{file}: OpenCV {cv2.__version__} comes without this cascade: "
            "install opencv-python>=4.12,<5"
        )
    return cascade


def _eye_pair(centres: list[Point]) -> tuple[Point, Point] | None:
    """Choose the two points that lie like eyes in a unit face box, or None.

    In a frontal cascade's box the eyes lie near (0.31, 0.39) and (0.69, 0.39).
    """
    best: tuple[float, tuple[Point, Point]] | None = None
    for a, b in product(centres, centres):
        across, down = b[0] - a[0], b[1] - a[1]
        if not (0.22 < across < 0.6 and abs(down) < 0.5 * across):
            continue
        middle = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
        if not (0.3 < middle[0] < 0.7 and 0.22 < middle[1] < 0.52):
            continue
        cost = abs(across - 0.38) + abs(down) + abs(middle[0] - 0.5) + abs(middle[1] - 0.39)
        if best is None or cost < best[0]:
            best = cost, (a, b)
    return best[1] if best else None
