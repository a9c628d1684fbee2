"""The face detector of the face-alignment package: boxes by S3FD, eyes from 68 landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emolib.errors import MissingDependencyError, MissingModelError
from emolib.media.detectors import Face
from emolib.params.media import FaceParams

WEIGHTS = ("s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar")


class LandmarkDetector:
    """The face-alignment package: S3FD face boxes, eyes from its 68 landmarks.

    Its own defaults (CUDA, mirrored second pass, compilation) are never used unasked.
    Cost: one network a frame and one a face; seconds on a CPU, milliseconds on a GPU. Memory of
    the device grows with ``batch`` times the pixels of a frame.
    """

    def __init__(self, params: FaceParams) -> None:
        try:
            import face_alignment
            import torch
        except ImportError as error:
            raise MissingDependencyError(
                f"face_alignment is not installed ({error}): pip install 'emolib[train]', "
                "or set detector: haar"
            ) from None
        folder = Path(params.weights).expanduser() if params.weights else Path(torch.hub.get_dir())
        files = [folder / "checkpoints" / name for name in WEIGHTS]
        missing = [str(file) for file in files if not file.is_file()]
        if missing and not params.allow_download:
            raise MissingModelError(
                f"face_alignment's weights are not here: {', '.join(missing)}; put them there "
                "(https://www.adrianbulat.com/downloads/python-fan/), set allow_download: true, "
                "or set detector: haar"
            )
        self.min_score, self.batch = params.min_score, params.batch
        before = torch.hub.get_dir()
        torch.hub.set_dir(str(folder))
        try:
            self.net = face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_D,
                device=params.device,
                flip_input=params.flip,
                compile=params.compile,
                max_batch_size=params.batch,
                face_detector="sfd",
                face_detector_kwargs={
                    "filter_threshold": params.min_score,
                    # Given as a file it is loaded as plain tensors only.
                    **({"path_to_detector": str(files[0])} if files[0].is_file() else {}),
                },
            )
        except Exception as error:
            raise MissingModelError(
                f"face_alignment cannot be opened from {folder} on {params.device}: {error}"
            ) from error
        finally:
            torch.hub.set_dir(before)

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find faces; see :meth:`Detector.detect`."""
        return self._faces(image, self.net.face_detector.detect_from_image(image.copy()))

    def detect_many(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Find the faces of several pictures; those of one size go through in batches."""
        import torch

        found: list[list[Face]] = [[] for _ in images]
        sizes: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(number)
        for alike in sizes.values():
            for start in range(0, len(alike), self.batch):
                part = alike[start : start + self.batch]
                stack = np.stack([images[number] for number in part]).transpose(0, 3, 1, 2)
                boxes = self.net.face_detector.detect_from_batch(torch.from_numpy(stack.copy()))
                for number, own in zip(part, boxes, strict=True):
                    found[number] = self._faces(images[number], own)
        return found

    def _faces(self, image: np.ndarray, boxes: Any) -> list[Face]:
        """Keep the sure ones of boxes [left, top, right, bottom, score]; find their eyes."""
        boxes = [[float(v) for v in box] for box in boxes if box[4] >= self.min_score]
        if not boxes:
            return []
        points = self.net.get_landmarks_from_image(image, detected_faces=boxes)
        faces = []
        for box, shape in zip(boxes, points, strict=True):
            # Points 36-41 surround the eye on the picture's left, 42-47 the other one.
            left, right = shape[36:42, :2].mean(axis=0), shape[42:48, :2].mean(axis=0)
            eyes = (float(left[0]), float(left[1])), (float(right[0]), float(right[1]))
            faces.append(Face((box[0], box[1], box[2], box[3]), box[4], eyes))
        return sorted(faces, key=lambda face: (-face.side, face.box))
