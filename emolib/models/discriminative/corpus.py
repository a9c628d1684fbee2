"""What a classifier learns from: features, classes and groups of the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emolib.datasets.clip import Clip
from emolib.datasets.open import open_dataset
from emolib.errors import DataError
from emolib.features.table import FeatureTable
from emolib.models.discriminative.classes import CLASSES
from emolib.params.schemas import DataParams

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
    valence = np.array([np.nan if c.valence is None else c.valence for c in clips], np.float64)
    y = [number[classes[clip.name]] if clip.name in classes else UNKNOWN for clip in clips]
    return Corpus(
        names=tuple(clip.name for clip in clips),
        tables=tuple(tables),
        y=np.asarray(y, dtype=np.int64),
        groups=tuple(clip.group if by_group else "" for clip in clips),
        valence=None if np.isnan(valence).all() else valence,
    )


def open_clips(
    data: DataParams, unlabelled: DataParams | None, outputs: Path
) -> tuple[list[Clip], list[Clip]]:
    """Clips with classes, and further ones without (the SEMI track's unlabelled set).

    Labels and valences the unlabelled set may hold are never looked at.

    Raises:
        DataError: a clip is in both sets, or a set cannot be read.
    """
    labelled = list(open_dataset(data, outputs))
    if unlabelled is None:
        return labelled, []
    names = {clip.name for clip in labelled}
    further = [
        replace(clip, labels=None, valence=None) for clip in open_dataset(unlabelled, outputs)
    ]
    if twice := [clip.name for clip in further if clip.name in names]:
        raise DataError(
            f"{len(twice)} clips of the unlabelled set are in the labelled one, too (first: "
            f"{twice[0]!r}): take them out of one"
        )
    return labelled, further
