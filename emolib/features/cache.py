"""Computed features on disk: one file an entry, named by what it depends on, checked when read.

An entry is a plain ``.npy`` file (``numpy.load`` reads it) followed by the SHA-256 of the bytes
before it. Files appear whole or not at all, several processes may share a cache, and reading
maps the file into memory instead of copying it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emolib.errors import DataError
from emolib.files import read_json, write_atomic, write_json
from emolib.hashing import key_of

_DIGEST = 32


class FeatureCache:
    """A folder ``ab/abcdef….npy`` of float32 arrays.

    Args:
        root: Folder; made when the first entry is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @staticmethod
    def key(content: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
        """Name of an entry: SHA-256 over the input's content and the extractor's identity."""
        return key_of(content=dict(content), extractor=dict(identity))

    def path(self, key: str) -> Path:
        """Where an entry lies, or would lie."""
        return self.root / key[:2] / f"{key}.npy"

    def note(self, key: str, note: Mapping[str, int]) -> None:
        """Keep some numbers beside an entry."""
        write_json(self.path(key).with_suffix(".json"), dict(note))

    def noted(self, key: str) -> dict[str, int] | None:
        """What was kept beside an entry; None when nothing was."""
        path = self.path(key).with_suffix(".json")
        try:
            return dict(read_json(path)) if path.is_file() else None
        except (DataError, TypeError, ValueError):
            return None

    def get(self, key: str) -> np.ndarray | None:
        """Map an entry into memory; None when there is none.

        Cost: one read of the file for its checksum.

        Returns:
            float32, read-only.

        Raises:
            DataError: the file is damaged; delete it or compute it again with :meth:`put`.
        """
        path = self.path(key)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        if len(raw) <= _DIGEST or hashlib.sha256(raw[:-_DIGEST]).digest() != raw[-_DIGEST:]:
            raise DataError(f"{path}: damaged feature file (its checksum does not fit)")
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def put(self, key: str, array: np.ndarray) -> np.ndarray:
        """Store an array, replacing what was there, and give it back as it will be read.

        Raises:
            DataError: the disk is full or the folder cannot be written.
            ValueError: the array holds NaN or infinity, or has other than one or two axes.
        """
        plain = np.ascontiguousarray(array, dtype=np.float32)
        if plain.ndim not in (1, 2) or not plain.size:
            raise ValueError(f"features of shape {plain.shape}: expected [width] or [steps, width]")
        if not np.isfinite(plain).all():
            raise ValueError("features hold NaN or infinity")
        buffer = io.BytesIO()
        np.save(buffer, plain, allow_pickle=False)
        raw = buffer.getvalue()
        write_atomic(self.path(key), raw + hashlib.sha256(raw).digest())
        return plain
