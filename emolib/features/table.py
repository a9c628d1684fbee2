"""Features of many clips: what an extractor is, and the loop that fills a table with them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from emolib.cluster import Work, spread
from emolib.datasets.clip import Clip
from emolib.errors import DataError, MediaError
from emolib.features.cache import FeatureCache
from emolib.params.cluster import ClusterParams
from emolib.processes import cores, side_by_side
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
    :func:`emolib.media.faces.face_record` says of it, put there by :meth:`load`. One whose work
    is done by libraries that let go of Python's lock may have ``threaded = True``: its clips are
    then computed side by side, on as many threads as there are cores.
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
    cluster: ClusterParams | None = None,
    gpus: float = 0.0,
) -> FeatureTable:
    """Compute one extractor's features of every clip, or take them from the cache.

    A clip without that part (no sound, no words) or with an unreadable file is a row of zeros,
    marked missing, with its reason; it never stops the others. A damaged cache entry is
    reported as a warning and computed again.

    Args:
        clips: Names unique.
        extractor: What to compute.
        cache: Where results are kept; this process alone writes to it.
        max_steps: Frame-level rows longer than this are averaged down to as many equal parts.
        cluster: Whose workers compute, each with a copy of the extractor; None = this process.
        gpus: GPUs of each copy.

    Returns:
        One row a clip, in order. Memory: clips x (steps x) width x 4 bytes.

    Raises:
        DataError: not one clip could be computed, or widths differ between clips.
    """
    found: dict[int, np.ndarray] = {}
    errors: dict[str, str] = {}
    todo: list[tuple[int, str, Clip]] = []
    keys: list[str] = []
    with Progress(extractor.name, len(clips), unit="clip") as progress:
        for number, clip in enumerate(clips):
            with _noted(errors, clip):
                key = cache.key(extractor.content(clip), extractor.identity)
                keys.append(key)
                stored = _stored(cache, key)
                if stored is None:
                    todo.append((number, key, clip))
                    continue
                found[number] = stored
            progress.advance()
        alone = cluster is None or cluster.engine == "none"
        threads = cores() if alone and getattr(extractor, "threaded", False) else 1
        opener = partial(_computer, extractor, threads)
        block = extractor.batch_size if extractor.batch_size > 1 else 0
        for number, key, value, record in spread(todo, opener, cluster, block=block, gpus=gpus):
            if isinstance(value, str):
                errors[clips[number].name] = value
            else:
                try:
                    found[number] = cache.put(key, value)
                except ValueError as error:
                    name = clips[number].name
                    raise DataError(f"{extractor.name}, clip {name}: {error}") from None
                if record is not None:
                    cache.note(key, {name: record[name] for name in ("frames", "found")})
            progress.advance()
    table = _assemble(clips, extractor, found, errors, max_steps)
    return replace(table, faces=_faces(cache, keys))


def _faces(cache: FeatureCache, keys: Sequence[str]) -> dict[str, int]:
    """Add up what was noted of faces when these entries were computed."""
    noted = [note for key in keys if (note := cache.noted(key))]
    return {name: sum(note[name] for note in noted) for name in ("frames", "found") if noted}


@contextmanager
def _noted(errors: dict[str, str], clip: Clip) -> Iterator[None]:
    """Note why a clip cannot be read, and go on."""
    try:
        yield
    except MediaError as error:
        errors[clip.name] = str(error)
    except OSError as error:
        errors[clip.name] = f"{clip.video}: cannot be read: {error.strerror or error}"


def _computer(extractor: Extractor, threads: int) -> Work:
    return partial(_compute, extractor, threads)


Computed = tuple[int, str, np.ndarray | str, dict[str, Any] | None]


def _compute(
    extractor: Extractor, threads: int, clips: Iterable[tuple[int, str, Clip]]
) -> Iterator[Computed]:
    """Number, key, features or why there are none, and the record of faces, of each clip."""
    source = iter(clips)
    batches = iter(lambda: list(itertools.islice(source, extractor.batch_size)), [])
    work = partial(_batch, extractor)
    done = map(work, batches) if threads < 2 else side_by_side(work, batches, threads)
    yield from itertools.chain.from_iterable(done)


def _batch(extractor: Extractor, batch: list[tuple[int, str, Clip]]) -> list[Computed]:
    records = getattr(extractor, "faces", {})
    loaded: dict[int, Any] = {}
    errors: dict[str, str] = {}
    for number, _, clip in batch:
        with _noted(errors, clip):
            loaded[number] = extractor.load(clip)
    arrays = extractor.extract(list(loaded.values())) if loaded else []
    values = dict(zip(loaded, arrays, strict=True))
    return [
        (
            number,
            key,
            values[number] if number in values else errors[clip.name],
            records.pop(clip.name, None),
        )
        for number, key, clip in batch
    ]


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
