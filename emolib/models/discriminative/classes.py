"""The six classes, and how a clip gets its one."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.scoring.lexicon import find, table

CLASSES = ("neutral", "angry", "happy", "sad", "worried", "surprise")
"""In the order of the MER challenges' label files."""

# From the families of the label lexicon. Two have no class of their own: what is averse or
# disgusted counts as angry, what is calm as neutral.
CLASS_OF_FAMILY = {
    "neutral": "neutral",
    "calm": "neutral",
    "anger": "angry",
    "disgust": "angry",
    "joy": "happy",
    "sadness": "sad",
    "fear": "worried",
    "surprise": "surprise",
}


def class_of_labels(labels: Sequence[str]) -> str | None:
    """Reduce open-vocabulary labels to one class: the first label whose family has one.

    In the demo world the first label names the core emotion, so this reads off the latent core
    (afraid counts as worried, disgusted as angry, calm as neutral).

    Returns:
        One of :data:`CLASSES`, or None when no label belongs to any.
    """
    entries = table()
    for label in labels:
        found = find(label)
        families = {entries[word].family for word in found.via if word in entries}
        if label in entries:
            families = {entries[label].family}
        classes = {CLASS_OF_FAMILY[f] for f in families if f in CLASS_OF_FAMILY}
        if len(classes) == 1:
            return classes.pop()
    return None


def classes_of_clips(clips: Sequence[Clip], file: Path | None = None) -> dict[str, str]:
    """Class of every clip that has one.

    Args:
        clips: The clips.
        file: CSV with ``name`` and ``discrete`` (or ``emo``), as in MER2024's ``label-disdim.csv``;
            None reduces the clips' own labels by :func:`class_of_labels`.

    Raises:
        DataError: not such a file, an unknown class in it, or no clip has a class.
    """
    if file is None:
        found = {clip.name: class_of_labels(clip.labels or ()) for clip in clips}
    else:
        listed = read_classes(file)
        found = {clip.name: listed.get(clip.name) for clip in clips}
    known = {name: one for name, one in found.items() if one is not None}
    if not known:
        where = file or "their open-vocabulary labels"
        raise DataError(f"not one of {len(clips)} clips has a class in {where}")
    return known


def read_classes(file: Path) -> dict[str, str]:
    """Read clip name -> class from a CSV.

    Raises:
        DataError: missing, no such columns, a name twice, or an unknown class.
    """
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    column = next((c for c in ("discrete", "emo") if rows and c in rows[0]), None)
    if column is None or "name" not in rows[0]:
        raise DataError(f"{file}: needs the columns 'name' and 'discrete' (or 'emo')")
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if row[column] not in CLASSES:
            raise DataError(f"{file}, line {number}: class {row[column]!r}; choose from {CLASSES}")
        if row["name"] in found:
            raise DataError(f"{file}, line {number}: {row['name']!r} is given twice")
        found[row["name"]] = row[column]
    return found
