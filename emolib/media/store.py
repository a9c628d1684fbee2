"""Keep frames as image files, each under a name made of its own content."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from emolib.errors import DataError, RunError
from emolib.files import write_atomic
from emolib.media.video import Frame, picture_sha

_STORED = re.compile(r"[0-9a-f]{32}(\.png|-q\d+\.jpg)")


class FrameStore:
    """A folder of pictures, ``ab/abcdef….png``: the same picture is stored once.

    Several processes may write to one store: a file appears whole or not at all.
    Cost of :meth:`put`: encoding (about 10 ms a megapixel), nothing when it is there already.

    Args:
        root: Folder; made when missing.
        format: "png" keeps every pixel; "jpeg" is about ten times smaller and loses detail.
        quality: JPEG quality, 1 to 100.

    Raises:
        ValueError: an unknown format or quality.
    """

    def __init__(
        self,
        root: Path,
        format: Literal["png", "jpeg"] = "png",
        quality: int = 95,
    ) -> None:
        if format not in ("png", "jpeg"):
            raise ValueError(f"format {format!r}: choose 'png' or 'jpeg'")
        if not 1 <= quality <= 100:
            raise ValueError(f"quality {quality} is not within 1 to 100")
        self.root = Path(root)
        self.suffix = ".png" if format == "png" else f"-q{quality}.jpg"
        # Light compression: most of the gain at a third of the time.
        png = [cv2.IMWRITE_PNG_COMPRESSION, 3]
        self._options = png if format == "png" else [cv2.IMWRITE_JPEG_QUALITY, quality]

    def path(self, image: np.ndarray | Frame) -> Path:
        """Tell where a picture lies, or would lie, in the store."""
        pixels = image.image if isinstance(image, Frame) else image
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"need uint8 [height, width, 3], got {pixels.dtype} {pixels.shape}")
        digest = image.sha if isinstance(image, Frame) else picture_sha(pixels)
        return self.root / digest[:2] / f"{digest}{self.suffix}"

    def put(self, image: np.ndarray | Frame) -> Path:
        """Store uint8 RGB [height, width, 3] and give its file; one that is there is kept.

        Raises:
            RunError: the store cannot be written to (disk full, no permission).
        """
        target = self.path(image)
        if target.exists():
            return target
        pixels = image.image if isinstance(image, Frame) else image
        _, data = cv2.imencode(target.suffix, pixels[:, :, ::-1], self._options)
        try:
            write_atomic(target, data.tobytes())
        except DataError as error:
            full = " (disk full: free some space and run again)"
            code = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
            hint = full if code in (errno.ENOSPC, errno.EDQUOT) else ""
            raise RunError(f"{error}{hint}") from None
        return target


def stored_name(path: Path) -> str:
    """Return the name of a store's file, which follows from its content; "" for any other file."""
    return path.name if _STORED.fullmatch(path.name) and path.parent.name == path.name[:2] else ""


def read_picture(path: Path) -> np.ndarray:
    """Read a stored picture back as uint8 RGB [height, width, 3].

    Raises:
        DataError: missing, or not a picture.
    """
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(f"{path}: not a picture; delete it and run again")
    return np.ascontiguousarray(image[:, :, ::-1])
