"""The emotion-wheel scores of MER2025 and MER2026, from the official tables.

Three ways of looking a label up, each coarser than the one before:

* ``m1``: word form -> base word (``format.csv``);
* ``m2``: also synonym -> wheel word (``synonym.xlsx``);
* ``m3``: also wheel word -> sector (``wheel1..5.xlsx``), at level 1 (inner) or 2 (middle),
  scores averaged over the five wheels.

A label often has several candidates; the official rule takes the alphabetically first.
The tables are given by path and never shipped with this package.

Source: MERTools 89120b7, ``MER2025_Track23/wheel.py`` and the MER2026 copy (behaviour).
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from emolib.errors import DataError, ScoreError
from emolib.files import sheet_rows
from emolib.scoring.encode import LabelSets
from emolib.scoring.grouping import Assignment, Grouped, TableGrouping

WHEELS = (1, 2, 3, 4, 5)
FILES = ("format.csv", "synonym.xlsx", *(f"wheel{k}.xlsx" for k in WHEELS))
# sha256 of format.csv, the one file that differs between the years
_YEARS = {
    "ba6de7d61db8e129d1d7ef8a2aae22a9e93a2c2e3e683e6f2735d04455f016f2": "2025",
    "82234299875465ecf6c196ace42ffbe745baaeea72b5e39de955af36929982a4": "2026",
}
Policy = Literal["drop", "keep"]


class WheelTables:
    """The official tables of one year, read once.

    Args:
        folder: Holds ``format.csv``, ``synonym.xlsx`` and ``wheel1.xlsx`` ... ``wheel5.xlsx``.

    Attributes:
        year: "2025", "2026", or "" for tables that are neither.
        sha: First 12 hex digits of a hash over all seven files.
        forms: Word form -> base words it may belong to.
        roots: Base word -> wheel words it may stand for.
        sectors: One dictionary a wheel: wheel word -> (level 1, level 2).

    Raises:
        DataError: a file is missing or not such a table.
    """

    def __init__(self, folder: Path) -> None:
        folder = Path(folder)
        lost = [name for name in FILES if not (folder / name).is_file()]
        if lost:
            raise DataError(
                f"{folder}: the emotion-wheel tables are incomplete, no {', '.join(lost)}; give "
                "the folder emotion_wheel/ of the official toolkit of that year with --tables"
            )
        digests = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in FILES}
        self.year = _YEARS.get(digests["format.csv"], "")
        self.sha = hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:12]
        self.forms = _read_forms(folder / "format.csv")
        self.roots = _read_synonyms(folder / "synonym.xlsx")
        self.sectors = [_read_wheel(folder / f"wheel{k}.xlsx") for k in WHEELS]

    def m1(self, label: str) -> str | None:
        """Base word of a label, or None when it is in no table."""
        bases = self.forms.get(label.lower().strip())
        return min(bases) if bases else None

    def m2(self, label: str) -> str | None:
        """Wheel word of a label, or None."""
        base = self.m1(label)
        roots = self.roots.get(base) if base is not None else None
        return min(roots) if roots else None

    def m3(self, label: str, wheel: int, level: int) -> str | None:
        """Sector of a label.

        Args:
            label: Any word or phrase.
            wheel: 1 to 5.
            level: 1 (inner ring) or 2 (middle ring).

        Returns:
            The sector's name, or None when no candidate is on this wheel.
        """
        sectors = self.sectors[wheel - 1]
        bases = self.forms.get(label.lower().strip(), ())
        roots = {root for base in bases for root in self.roots.get(base, ()) if root in sectors}
        return sectors[min(roots)][level - 1] if roots else None

    def vote(self, a: str, b: str, level: int = 1, policy: Policy = "drop") -> bool:
        """Tell whether at least three of the five wheels put two labels into one sector."""
        same = 0
        for wheel in WHEELS:
            sectors = [self.m3(label, wheel, level) for label in (a, b)]
            if sectors[0] is not None:
                same += sectors[0] == sectors[1]
            elif policy == "keep":
                same += a == b
        return same >= 3


class WheelGrouping(TableGrouping):
    """Wheel scores as a grouping; accuracy and recall are ``m3`` level 1 over five wheels.

    Args:
        tables: The official tables.
        year: "2025" or "2026": which ranking score; the tables may be of either year and
            are named in ``version``.
        outside: Labels no table holds: "drop" them from both sides, as the official script
            does (an invented label then costs nothing), or "keep" each as a group of its own.
    """

    shared = True

    def __init__(self, tables: WheelTables, year: str, outside: Policy = "drop") -> None:
        if year not in ("2025", "2026"):
            raise ScoreError(f"unknown wheel year {year!r}: choose 2025 or 2026")
        if outside not in ("drop", "keep"):
            raise ScoreError(f"unknown policy {outside!r} for words outside: choose drop or keep")
        self.tables = tables
        self.name = f"ew{year}"
        kind = f"tables-{tables.year or 'unknown'}-{tables.sha}"
        self.version = kind if outside == "drop" else f"{kind}+keep"
        self.outside = outside
        self.ranked_by = ("m3_level1", "m3_level2") if year == "2025" else ("m3_level1",)

    def _view(self, vocab: Sequence[str], found: Sequence[str | None]) -> list[str | None]:
        if self.outside == "drop":
            return list(found)
        return [f"?{x}" if group is None else group for x, group in zip(vocab, found, strict=True)]

    def views(self, vocab: Sequence[str]) -> list[list[str | None]]:
        """Level-1 sectors of every label, one list a wheel."""
        return [self._view(vocab, [self.tables.m3(x, w, 1) for x in vocab]) for w in WHEELS]

    def known(self, vocab: Sequence[str]) -> list[bool]:
        """Whether the tables hold each label at all."""
        return [self.tables.m1(label) is not None for label in vocab]

    def assign(
        self, clips: Sequence[str], gold: LabelSets, pred: LabelSets, vocab: Sequence[str]
    ) -> Grouped:
        """Level-1 views, and every official table: m1, m2, m3_level1, m3_level2."""
        first = super().assign(clips, gold, pred, vocab)

        def view(groups: Sequence[str | None]) -> Assignment:
            index: dict[str, int] = {}
            ids = np.array(
                [-1 if g is None else index.setdefault(g, len(index)) for g in groups], np.int64
            )
            return Assignment(ids[gold.codes], ids[pred.codes], tuple(index))

        t = self.tables
        tables = {
            "m1": [view(self._view(vocab, [t.m1(x) for x in vocab]))],
            "m2": [view(self._view(vocab, [t.m2(x) for x in vocab]))],
            "m3_level1": first.views,
            "m3_level2": [view(self._view(vocab, [t.m3(x, w, 2) for x in vocab])) for w in WHEELS],
        }
        return Grouped(first.views, first.known_gold, first.known_pred, tables)


def open_wheels(name: str, folder: Path, outside: Policy = "drop") -> WheelGrouping:
    """Open the grouping "ew2025" or "ew2026" on the tables in ``folder``.

    Raises:
        DataError: tables missing or unreadable.
        ScoreError: the tables are known to be the other year's.
    """
    year = name.removeprefix("ew")
    tables = WheelTables(folder)
    if tables.year and tables.year != year:
        raise ScoreError(
            f"{folder} holds the {tables.year} tables, in which 17 rows differ: give the {year} "
            f"tables for {name}, or ask for ew{tables.year}"
        )
    return WheelGrouping(tables, year, outside)


def _read_forms(path: Path) -> dict[str, set[str]]:
    forms: dict[str, set[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                for form in row["format"].split(","):
                    if form := form.strip().lower():
                        forms.setdefault(form, set()).add(row["name"].strip().lower())
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected columns name,format ({error})") from None
    return forms


def _cells(path: Path) -> list[list[str | None]]:
    """Rows of a sheet, header first, texts stripped and lower-cased."""
    return [
        [None if x is None else str(x).strip().lower() or None for x in row]
        for row in sheet_rows(path)
    ]


def _read_synonyms(path: Path) -> dict[str, set[str]]:
    header, *rows = _cells(path)
    roots: dict[str, set[str]] = {}
    for number, title in enumerate(header):
        if title is None or not title.startswith("word_run"):
            continue
        other = header.index(title.replace("word", "synonym"))
        for row in rows:
            word, synonyms = row[number], row[other]
            if word is None:
                continue
            roots.setdefault(word, set()).add(word)
            for synonym in (synonyms or "").split(","):
                if synonym := synonym.strip():
                    roots.setdefault(synonym, set()).add(word)
    if not roots:
        raise DataError(f"{path}: no columns word_run1, synonym_run1, ...")
    return roots


def _read_wheel(path: Path) -> dict[str, tuple[str, str]]:
    """Wheel word -> (level 1, level 2); blank cells repeat the one above."""
    header, *rows = _cells(path)
    if header[:3] != ["level1", "level2", "level3"]:
        raise DataError(f"{path}: expected columns level1, level2, level3, found {header}")
    sectors: dict[str, tuple[str, str]] = {}
    inner: dict[str, set[str]] = {}
    level1 = level2 = ""
    for row in rows:
        level1, level2 = row[0] or level1, row[1] or level2
        inner.setdefault(level1, set()).add(level2)
        for word in (level2, row[2]):
            if word:
                sectors[word] = (level1, level2)  # a word in two sectors: the last one counts
    # A word of the inner ring has no middle sector; officially the first by alphabet.
    return sectors | {word: (word, min(found)) for word, found in inner.items()}
