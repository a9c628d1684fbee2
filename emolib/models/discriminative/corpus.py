"""What a classifier learns from: features, classes and groups of the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.features.table import FeatureTable
from emolib.models.discriminative.classes import CLASSES

UNKNOWN = -1


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Clips with features; those without a class can only be predicted or pseudo-labelled.

    Attributes:
        names: Clip names, unique.
        tables: Feature tables, a row a clip in the same order.
        y: int64 [clips], index into ``classes``; -1 = unknown.
        groups: What folds must not divide, "" = the clip alone.
        classes: Class names.
        valence: float64 [clips], NaN = unknown; or None.
    """

    names: tuple[str, ...]
    tables: tuple[FeatureTable, ...]
    y: np.ndarray
    groups: tuple[str, ...]
    classes: tuple[str, ...] = CLASSES
    valence: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.names)
        if len(set(self.names)) != n:
            raise DataError("two clips of the corpus have the same name")
        if not self.tables:
            raise DataError("the corpus has no features: name at least one extractor")
        sizes = {table.name: table.values.shape[0] for table in self.tables}
        if any(size != n for size in sizes.values()) or len(self.y) != n or len(self.groups) != n:
            raise DataError(f"{n} clips, but features {sizes}, {len(self.y)} classes")

    @property
    def labelled(self) -> np.ndarray:
        """int64, positions of the clips whose class is known."""
        return np.flatnonzero(self.y >= 0)

    @property
    def unlabelled(self) -> np.ndarray:
        """int64, positions of the clips whose class is not known."""
        return np.flatnonzero(self.y < 0)


def corpus_of(
    clips: Sequence[Clip],
    tables: Sequence[FeatureTable],
    classes: Mapping[str, str],
    *,
    by_group: bool = True,
) -> Corpus:
    """Join clips, their features and their six classes.

    Args:
        clips: The clips.
        tables: A row a clip, in the same order.
        classes: Clip name -> class; clips not in it are unlabelled.
        by_group: Use the clips' groups; False = every clip alone.
    """
    number = {name: k for k, name in enumerate(CLASSES)}
    y = [number[classes[clip.name]] if clip.name in classes else UNKNOWN for clip in clips]
    return Corpus(
        names=tuple(clip.name for clip in clips),
        tables=tuple(tables),
        y=np.asarray(y, dtype=np.int64),
        groups=tuple(clip.group if by_group else "" for clip in clips),
    )
