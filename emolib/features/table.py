"""Features of many clips: what an extractor is, and the loop that fills a table with them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import DataError, MediaError
from emolib.features.cache import FeatureCache
from emolib.progress import Progress

Modality = Literal["audio", "visual", "text"]
Level = Literal["utterance", "frame"]


class Extractor(Protocol):
    """Turns clips into vectors; weight-free ones and models share this interface.

    Attributes:
        name: What the features are called in tables, e.g. "hubert-large".
        modality: Which part of a clip it reads.
        identity: Everything its numbers depend on beside the clip, as plain JSON values; part
            of every cache key.
        batch_size: Clips computed together.

    One that cuts faces out may have ``faces``: clip name -> what
    :func:`emolib.media.faces.face_record` says of it, put there by :meth:`load`.
    """

    name: str
    modality: Modality
    identity: dict[str, Any]
    batch_size: int

    def content(self, clip: Clip) -> dict[str, Any]:
        """What of the clip the numbers depend on (file hashes, words), as plain JSON values."""
        ...

    def load(self, clip: Clip) -> Any:
        """Read the clip's part; raises MediaError when that is impossible."""
        ...

    def extract(self, items: Sequence[Any]) -> list[np.ndarray]:
        """Compute what :meth:`load` gave.

        Returns:
            float32 one array an item: [width] utterance-level or [frames, width] frame-level.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """One extractor's features of many clips.

    Attributes:
        name: The extractor's name.
        modality: Which part of the clips it comes from.
        values: float32 [clips, width]; [clips, steps, width] padded with zeros; or a SciPy CSR
            matrix [clips, width] of n-gram counts (for the linear model alone).
        lengths: int64 [clips], steps that are real; None at utterance level.
        missing: bool [clips], True where there was nothing to compute from: a row of zeros.
        errors: Clip name -> why it is missing.
        identity: The extractor's identity.
        faces: Of features cut out of faces: ``frames`` looked at and those with a face
            ``found``, over all clips; empty for other features.
    """

    name: str
    modality: Modality
    values: Any
    lengths: np.ndarray | None
    missing: np.ndarray
    errors: dict[str, str] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    faces: Mapping[str, int] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Numbers per clip or step."""
        return int(self.values.shape[-1])

    def rows(self, index: np.ndarray) -> FeatureTable:
        """The same table over some of its clips, in the order of ``index``."""
        lengths = None if self.lengths is None else self.lengths[index]
        return FeatureTable(
            self.name,
            self.modality,
            self.values[index],
            lengths,
            self.missing[index],
            self.errors,
            self.identity,
            self.faces,
        )


def feature_table(
    clips: Sequence[Clip],
    extractor: Extractor,
    cache: FeatureCache,
    *,
    max_steps: int = 64,
) -> FeatureTable:
    """Compute one extractor's features of every clip, or take them from the cache.

    A clip without that part (no sound, no words) or with an unreadable file is a row of zeros,
    marked missing, with its reason; it never stops the others. A damaged cache entry is
    reported as a warning and computed again.

    Args:
        clips: Names unique.
        extractor: What to compute.
        cache: Where results are kept.
        max_steps: Frame-level rows longer than this are averaged down to as many equal parts.

    Returns:
        One row a clip, in order. Memory: clips x (steps x) width x 4 bytes.

    Raises:
        DataError: not one clip could be computed, or widths differ between clips.
    """
    found: dict[int, np.ndarray] = {}
    errors: dict[str, str] = {}
    waiting: list[tuple[int, str, Any]] = []
    keys: list[str] = []
    with Progress(extractor.name, len(clips), unit="clip") as progress:
        for number, clip in enumerate(clips):
            try:
                key = cache.key(extractor.content(clip), extractor.identity)
                keys.append(key)
                stored = _stored(cache, key)
                if stored is None:
                    waiting.append((number, key, extractor.load(clip)))
                else:
                    found[number] = stored
            except MediaError as error:
                errors[clip.name] = str(error)
            except OSError as error:
                errors[clip.name] = f"{clip.video}: cannot be read: {error.strerror or error}"
            if len(waiting) >= extractor.batch_size or (waiting and number == len(clips) - 1):
                _compute(clips, extractor, cache, waiting, found)
                waiting = []
            progress.advance()
    table = _assemble(clips, extractor, found, errors, max_steps)
    return replace(table, faces=_faces(cache, keys))


def _faces(cache: FeatureCache, keys: Sequence[str]) -> dict[str, int]:
    """Add up what was noted of faces when these entries were computed."""
    noted = [note for key in keys if (note := cache.noted(key))]
    return {name: sum(note[name] for note in noted) for name in ("frames", "found") if noted}


def _compute(
    clips: Sequence[Clip],
    extractor: Extractor,
    cache: FeatureCache,
    waiting: Sequence[tuple[int, str, Any]],
    found: dict[int, np.ndarray],
) -> None:
    arrays = extractor.extract([item for _, _, item in waiting])
    for (number, key, _), array in zip(waiting, arrays, strict=True):
        try:
            found[number] = cache.put(key, array)
        except ValueError as error:
            raise DataError(f"{extractor.name}, clip {clips[number].name}: {error}") from None
        record = getattr(extractor, "faces", {}).pop(clips[number].name, None)
        if record is not None:
            cache.note(key, {name: record[name] for name in ("frames", "found")})


def _stored(cache: FeatureCache, key: str) -> np.ndarray | None:
    try:
        return cache.get(key)
    except DataError as error:
        warnings.warn(f"{error}; computed again", stacklevel=3)
        return None


def _assemble(
    clips: Sequence[Clip],
    extractor: Extractor,
    found: Mapping[int, np.ndarray],
    errors: dict[str, str],
    max_steps: int,
) -> FeatureTable:
    if not found:
        first = next(iter(errors.values()), "no clips")
        raise DataError(f"{extractor.name}: no features of any of {len(clips)} clips: {first}")
    widths = {array.shape[-1] for array in found.values()}
    levels = {array.ndim for array in found.values()}
    if len(widths) > 1 or len(levels) > 1:
        raise DataError(f"{extractor.name}: features of different widths {sorted(widths)}")
    [width], [level] = widths, levels
    missing = np.array([number not in found for number in range(len(clips))])
    head = extractor.name, extractor.modality
    if level == 1:
        values = np.zeros((len(clips), width), dtype=np.float32)
        for number, array in found.items():
            values[number] = array
        return FeatureTable(*head, values, None, missing, errors, extractor.identity)
    shortened = {number: shorten(array, max_steps) for number, array in found.items()}
    lengths = np.ones(len(clips), dtype=np.int64)
    steps = max(len(array) for array in shortened.values())
    values = np.zeros((len(clips), steps, width), dtype=np.float32)
    for number, array in shortened.items():
        lengths[number] = len(array)
        values[number, : len(array)] = array
    return FeatureTable(*head, values, lengths, missing, errors, extractor.identity)


def shorten(array: np.ndarray, steps: int) -> np.ndarray:
    """Average float [frames, width] down to at most ``steps`` equal parts."""
    if len(array) <= steps:
        return array
    edges = np.linspace(0, len(array), steps + 1).astype(np.int64)
    sums = np.add.reduceat(array.astype(np.float64), edges[:-1], axis=0)
    return (sums / np.diff(edges)[:, None]).astype(np.float32)
