"""Read the CSV that tells words and labels of a folder's clips."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emolib.errors import DataError
from emolib.files import open_csv
from emolib.labels import parse_labels

COLUMNS = ("name", "subtitle", "labels", "description", "split", "audio", "group")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"} | {
    "test": "test",
    "": "",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None or "" where it says nothing. ``line`` counts from 1."""

    line: int
    name: str
    subtitle: str | None
    labels: tuple[str, ...] | None
    description: str | None
    split: str
    audio: str
    group: str


def read_table(path: Path) -> list[Row]:
    """Read a CSV with a ``name`` column and any of the other :data:`COLUMNS`.

    Blank cells, ``nan`` and ``NaN`` (what pandas writes for nothing) mean unknown. Encodings:
    UTF-8 with or without byte-order mark, UTF-16 with one, GB 18030.

    Raises:
        DataError: unreadable, no or unknown columns, a line with too many or too few cells,
            a name missing or given twice, an unknown split; names file and line.
    """
    header, lines = read_lines(path)
    _check_header(path, header)
    rows = [_row(path, number, dict(zip(header, cells, strict=True))) for number, cells in lines]
    seen: dict[str, int] = {}
    twice = [row.name for row in rows if seen.setdefault(row.name, row.line) != row.line]
    if twice:
        raise DataError(f"{path}: {few(twice)} given more than once under 'name'")
    return rows


def read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a CSV's header and its other lines as (line number, cells); blank lines left out.

    Raises:
        DataError: unreadable, not CSV, empty, or a line with too many or too few cells.
    """
    header, rest = open_csv(path, decode(path), ("name", "names"))
    lines = list(rest)
    if not header:
        raise DataError(f"{path}: the table is empty; it needs a header line with 'name'")
    for number, cells in lines:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells, the header has {len(header)}: "
                'put cells that hold commas in "double quotes"'
            )
    return header, lines


def decode(path: Path) -> str:
    """Read a text file in whichever of the encodings named in :func:`read_table` it is.

    Raises:
        DataError: missing, unreadable or in another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DataError(
        f"{path}: not text in UTF-8, UTF-16 or GB 18030; save it as 'CSV UTF-8' "
        "(a spreadsheet such as .xlsx must be exported first)"
    )


def read_labels(text: str) -> tuple[str, ...] | None:
    """Read a cell of gold labels as :func:`emolib.labels.parse_labels` reads predictions.

    Returns:
        Labels in order, without repeats; None when there are none.

    Raises:
        ValueError: there is text that is no list of labels.
    """
    parsed = parse_labels(text)
    if parsed.status == "unparsed":
        raise ValueError(f"no list of labels: {text.strip()[:60]!r}; write ['a', 'b']")
    return parsed.labels or None


def few(names: Iterable[str], limit: int = 5) -> str:
    """Say how many names there are and show the first: ``3 names ('a', 'b', …)``."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:limit])
    more = ", …" if len(names) > limit else ""
    return f"{len(names)} name{'s' if len(names) != 1 else ''} ({shown}{more})"


def _check_header(path: Path, header: list[str]) -> None:
    for column in header:
        if column not in COLUMNS:
            close = difflib.get_close_matches(column.lower(), COLUMNS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise DataError(f"{path}: unknown column {column!r}; {hint}choose from {list(COLUMNS)}")
    if "name" not in header:
        raise DataError(f"{path}: no column 'name'; it has {header}")
    if len(set(header)) < len(header):
        raise DataError(f"{path}: a column is given twice: {header}")


def _row(path: Path, number: int, cells: dict[str, str]) -> Row:
    known = {key: known_text(cell) for key, cell in cells.items()}
    name = cells["name"].strip()
    if not name:
        raise DataError(f"{path}, line {number}: no name")
    split = (known.get("split") or "").lower()
    if split not in SPLITS:
        raise DataError(
            f"{path}, line {number}: split {split!r}; choose from {sorted(set(SPLITS) - {''})}"
        )
    try:
        labels = read_labels(known.get("labels") or "")
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {error}") from None
    return Row(
        line=number,
        name=name,
        subtitle=known.get("subtitle"),
        labels=labels,
        description=known.get("description"),
        split=SPLITS[split],
        audio=known.get("audio") or "",
        group=known.get("group") or "",
    )


def known_text(cell: str) -> str | None:
    """Give a cell's text, or None where it says nothing (blank, or pandas' ``nan``)."""
    cell = cell.strip()
    return None if cell.lower() in ("", "nan") else cell
