"""Label files in, dictionaries of lists out; every fault named with file, row and remedy.

=============  ==========================================================================
ending         content
=============  ==========================================================================
.csv .tsv      columns ``name`` and ``openset`` (or ``labels``); other columns are ignored; cells
               are parted by commas, semicolons or tabs
.xlsx          the same on the first sheet
.jsonl         our prediction files: one object a line with ``name`` and ``labels``; or results
               of ms-swift, where ``response`` is the answer and ``labels`` the reference
.json          an object name -> labels, or a list of such prediction objects
.npz           ``filenames`` and ``fileitems`` as text arrays (pickled ones are refused)
=============  ==========================================================================
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from emolib.errors import DataError
from emolib.files import open_csv, plain_name, sheet_rows, without_zeros
from emolib.labels import Mode, Status
from emolib.scoring.columns import parse_column

LABEL_COLUMNS = ("openset", "labels")
NAME_COLUMNS = ("name", "names")


@dataclass(frozen=True, slots=True)
class LabelFile:
    """Labels of one file.

    Attributes:
        labels: Clip name -> labels, in file order.
        statuses: How many cells were "ok", "repaired", "empty" and "unparsed".
        duplicates: Rows left out because their name had occurred (0 unless asked for).
    """

    labels: dict[str, tuple[str, ...]]
    statuses: dict[Status, int]
    duplicates: int


def read_labels(
    path: Path | str,
    mode: Mode = "tolerant",
    *,
    column: str = "",
    system: str = "",
    duplicates: Literal["error", "first", "last"] = "error",
    answers: bool = True,
) -> LabelFile:
    """Read a gold or prediction file; names lose a media suffix and are brought to NFC.

    Args:
        path: See the module's table.
        mode: Parser of text cells. Lists (JSON, prediction files) are taken as they are,
            and normalised in tolerant mode.
        column: Column or key with the labels; "" = ``openset`` or ``labels``.
        system: Only rows of this system, of a prediction file that holds several; "" = all.
        duplicates: A name that occurs twice: "error", or keep the "first" or "last" row.
        answers: It is a prediction file: of a result file of ms-swift the answers are read. False
            (gold) reads the references.

    Raises:
        DataError: missing or unreadable file, wrong columns, broken rows, unknown encoding,
            pickled arrays, duplicate names, or text the official parser crashes on.
    """
    path = Path(path)
    rows, names, cells = [], [], []
    for row, name, cell in read_cells(path, column, system, answers=answers):
        rows.append(row)
        names.append(plain_name(name))
        cells.append(cell)
    if not rows:
        raise DataError(f"{path}: no rows in it" + (f" of system {system!r}" if system else ""))
    if duplicates == "error" and len(set(names)) < len(names):
        first: dict[str, int] = {}
        for row, name in zip(rows, names, strict=True):
            if first.setdefault(name, row) != row:
                raise DataError(
                    f"{path}, row {row}: {name!r} was already given in row {first[name]}: remove "
                    "one of them, say which counts with --duplicates first or last, or, if the "
                    "file holds several systems, choose one with --system"
                )
    parsed = parse_column(cells, mode)
    if parsed.unparsed and mode == "mer2024":
        at = parsed.unparsed[0]
        raise DataError(
            f"{path}, row {rows[at]} ({names[at]}): no '[' in {str(cells[at])[:60]!r}, on which "
            "the official parser crashes: write labels as ['a', 'b'] or use --parser tolerant"
        )
    pairs = zip(names, parsed.lists(), strict=True)
    labels = dict(pairs if duplicates != "first" else reversed(list(pairs)))
    if duplicates == "first":
        labels = {name: labels[name] for name in names}
    return LabelFile(labels, dict(parsed.statuses), len(names) - len(labels))


def read_names(path: Path | str) -> set[str]:
    """Clip names of a training list: any label file, or text with one name a line.

    Raises:
        DataError: missing or unreadable.
    """
    path = Path(path)
    if path.suffix.lower() in (".txt", ".lst", ""):
        return {plain_name(line) for line in _text(path).split("\n") if line.strip()}
    if path.suffix.lower() in (".csv", ".tsv", ".xlsx"):
        return {plain_name(name) for _, name, _ in _table_cells(path, None)}
    return {plain_name(name) for _, name, _ in read_cells(path)}


def align(gold: LabelFile, pred: LabelFile) -> tuple[LabelFile, int]:
    """Give predictions whose names lost their leading zeros the gold's names.

    Returns:
        The predictions, and how many were renamed.
    """
    renamed = without_zeros(pred.labels, gold.labels)
    labels = {renamed.get(name, name): found for name, found in pred.labels.items()}
    if not renamed or len(labels) < len(pred.labels):
        return pred, 0
    return replace(pred, labels=labels), len(renamed)


def read_cells(
    path: Path, column: str = "", system: str = "", *, answers: bool = True
) -> Iterator[tuple[int, str, object]]:
    """Yield (row, clip name, cell); rows count from 1 as a text editor shows them."""
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv", ".xlsx"):
        return _table_cells(path, (column,) if column else LABEL_COLUMNS)
    if kind in (".jsonl", ".ndjson", ".json"):
        return _json_cells(path, (column,) if column else LABEL_COLUMNS, system, answers)
    if kind == ".npz":
        return _npz_cells(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the label file in it")
    _require(path)
    raise DataError(f"{path}: unknown kind of file; give .csv, .tsv, .xlsx, .jsonl, .json or .npz")


def _require(path: Path) -> None:
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        hint = f"; beside it lie {', '.join(beside[:8])}" if beside else ""
        raise DataError(f"{path}: no such file{hint}")


def _text(path: Path) -> str:
    _require(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, row {row}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as "
            "UTF-8, e.g. iconv -f GB18030 -t UTF-8 (the usual other encoding of these files)"
        ) from None
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path}, row {row}: holds a NUL byte, so it is not a text table")
    return text


def _table_cells(path: Path, columns: tuple[str, ...] | None) -> Iterator[tuple[int, str, object]]:
    """Rows of a table; ``columns=None`` reads names only."""
    if path.suffix.lower() == ".xlsx":
        header, lines = _sheet_lines(path)
    else:
        header, lines = open_csv(path, _text(path), NAME_COLUMNS)
    name_at = _find(path, header, NAME_COLUMNS)
    cell_at = name_at if columns is None else _find(path, header, columns)
    for row, cells in lines:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, row {row}: {len(cells)} cells under {len(header)} columns; put quotes "
                "around labels that hold commas: name,\"['a', 'b']\""
            )
        name = cells[name_at].strip()
        if not name:
            raise DataError(f"{path}, row {row}: the name is empty")
        yield row, name, cells[cell_at]


def _sheet_lines(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header and lines of an .xlsx file's first sheet, cells as text."""
    _require(path)
    rows = [["" if cell is None else str(cell) for cell in row] for row in sheet_rows(path)]
    numbered = [(n, row) for n, row in enumerate(rows, 1) if any(c.strip() for c in row)]
    header = [cell.strip().lower() for cell in numbered[0][1]] if numbered else []
    return header, iter(numbered[1:])


def _find(path: Path, header: list[str], wanted: tuple[str, ...]) -> int:
    found = [(c, i) for c in wanted for i, have in enumerate(header) if have == c.lower()]
    if not found:
        raise DataError(
            f"{path}, row 1: no column {' or '.join(repr(c) for c in wanted)}, only {header}: "
            "rename the column or name it with --column"
        )
    if len({name for name, _ in found}) < len(found):
        raise DataError(f"{path}, row 1: column {found[0][0]!r} is given twice: remove one of them")
    if len(found) > 1:
        both = " and ".join(repr(name) for name, _ in found)
        remedy = "say which one with --column" if set(wanted) == set(LABEL_COLUMNS) else "keep one"
        raise DataError(f"{path}, row 1: has columns {both}: {remedy}")
    return found[0][1]


def _json_cells(
    path: Path, keys: tuple[str, ...], system: str, answers: bool
) -> Iterator[tuple[int, str, object]]:
    text = _text(path)
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error})") from None
        if isinstance(content, dict) and len(content) == 1:  # {"results": [...]}
            only = next(iter(content.values()))
            content = only if isinstance(only, list) and _are_objects(only) else content
        if isinstance(content, dict):
            yield from ((i, name, cell) for i, (name, cell) in enumerate(content.items(), 1))
            return
        if not isinstance(content, list):
            raise DataError(f"{path}: expected an object name -> labels, or a list of objects")
        records = list(enumerate(content, 1))
    else:
        records = []
        for row, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    records.append((row, json.loads(line)))
                except ValueError as error:
                    raise DataError(
                        f"{path}, row {row}: not JSON ({error}); if the file was cut off, make "
                        "it again"
                    ) from None
    for row, record in records:
        found = [k for k in keys if isinstance(record, dict) and k in record]
        if answers and keys == LABEL_COLUMNS and found == ["labels"] and "response" in record:
            found = ["response"]  # ms-swift writes the reference under "labels"
        if len(found) > 1:
            raise DataError(
                f"{path}, row {row}: has {' and '.join(map(repr, found))}: say which one with "
                "--column"
            )
        if not found or not isinstance(record.get("name"), str):
            raise DataError(
                f"{path}, row {row}: expected an object with 'name' and "
                f"{' or '.join(repr(k) for k in keys)}"
            )
        if not system or record.get("system") == system:
            yield row, record["name"], record[found[0]]


def _are_objects(items: list[object]) -> bool:
    return bool(items) and all(isinstance(item, dict) and "name" in item for item in items)


def _npz_cells(path: Path) -> Iterator[tuple[int, str, object]]:
    _require(path)
    remedy = "rewrite it as CSV with columns name,openset, or save both as text arrays"
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a readable .npz file; {remedy}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names, items = archive["filenames"], archive["fileitems"]
    except ValueError as error:
        why = "holds pickled arrays, which could run code and are never opened"
        why = why if "allow_pickle" in str(error) else f"cannot be read ({error})"
        raise DataError(f"{path}: {why}; {remedy}") from None
    except KeyError as error:
        raise DataError(f"{path}: has no array 'filenames' or 'fileitems' ({error})") from None
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file ({error}); {remedy}") from None
    if names.shape != items.shape[:1]:
        raise DataError(f"{path}: {names.shape} filenames but {items.shape} fileitems")
    for row, (name, item) in enumerate(zip(names.tolist(), items.tolist(), strict=True), 1):
        yield row, str(name), item
