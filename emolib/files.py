"""Files that appear whole or not at all, and tables and JSON lines as people write them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
import unicodedata
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from emolib.errors import DataError


def write_atomic(path: Path, data: str | bytes) -> Path:
    """Write a whole file or nothing: a reader never sees half of it, a kill leaves the old one.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    # A model's answer may hold half a character (a lone surrogate), which UTF-8 cannot say.
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:60]}.", suffix=".tmp"
        )
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        return temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_json(path: Path, value: object) -> Path:
    """Write readable JSON atomically; NaN is refused with ValueError."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return write_atomic(path, text + "\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> Path:
    """Write one JSON value a line atomically; NaN is refused with ValueError."""
    lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    return write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, one line in memory at a time.

    Raises:
        DataError: no such file, or a line that is not a JSON object; names file and line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path}, line {number}: not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {number}: expected a JSON object")
                yield row
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def plain_name(name: str) -> str:
    """Give a clip name's one form: composed characters (NFC), no spaces around, no media suffix."""
    name = unicodedata.normalize("NFC", name).strip()
    return re.sub(r"\.(mp4|m4v|avi|mkv|mov|webm|wav)$", "", name, flags=re.IGNORECASE)


def without_zeros(names: Iterable[str], among: Collection[str]) -> dict[str, str]:
    """Match numbers that lost their leading zeros to names that have theirs ("1" -> "0001").

    Spreadsheets and pandas strip such zeros. Only names that are nowhere in ``among`` are matched,
    and only where a single name fits.

    Args:
        names: Names as one file gives them.
        among: Names as they should be.

    Returns:
        Name -> the name it stands for; names that need no change or fit nothing are absent.
    """
    short: dict[str, list[str]] = {}
    for name in among:
        if name.isdecimal():
            short.setdefault(name.lstrip("0") or "0", []).append(name)
    lost = [name for name in names if name.isdecimal() and name not in among]
    return {name: short[name][0] for name in lost if len(short.get(name, ())) == 1}


def open_csv(
    path: Path, text: str, required: Collection[str] = ("name",)
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Open a table of cells parted by commas, semicolons or tabs.

    The separator is the one a ``sep=`` line names (Excel writes such lines), else the first with
    which the header holds one of the required columns, else the comma.

    Args:
        path: The file, for messages.
        text: Its text.
        required: Lower-case column names of which the header should hold one.

    Returns:
        Column names, lower-case, without spaces around; and the lines after the header that are
        not blank, as (line number counted from 1, cells).

    Raises:
        DataError: broken quotes, here or while iterating.
    """
    first, _, rest = text.partition("\n")
    skipped, separators = 0, [",", ";", "\t"]
    if named := re.fullmatch(r"sep=(.)\s*", first.strip("\r\ufeff"), re.IGNORECASE):
        text, skipped, separators = rest, 1, [named[1]]

    def lines(separator: str) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
        )
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num + skipped, cells
        except csv.Error as error:
            raise DataError(
                f"{path}, row {reader.line_num + skipped}: broken CSV ({error}); check the quotes "
                "of this row"
            ) from None

    for separator in separators:
        found = lines(separator)
        header = [cell.strip().lower() for cell in next(found, (0, []))[1]]
        if set(header) & set(required):
            return header, found
    found = lines(separators[0])
    return [cell.strip().lower() for cell in next(found, (0, []))[1]], found


def sheet_rows(path: Path) -> list[tuple[Any, ...]]:
    """Read the cells of an .xlsx file's first sheet.

    Raises:
        DataError: missing, or no such file.
    """
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
        rows = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except (InvalidFileException, zipfile.BadZipFile, KeyError, OSError, IndexError) as error:
        raise DataError(f"{path}: not a readable .xlsx table ({error})") from None
    return rows


_CONTROL = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f]")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def load_tensors(path: Path, *, mmap: bool = False) -> Any:
    """Load a file that torch saved, tensors and plain values only; no code in it is run.

    Args:
        path: A ``.pt``, ``.pth`` or ``.bin`` file.
        mmap: Map the file where its format allows it, so that only what is used is read.

    Raises:
        DataError: refused, because its pickle asks for more, or no such file at all.
    """
    import torch

    for mapped in (True, False) if mmap else (False,):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except (RuntimeError, ValueError) as error:  # the older format cannot be mapped
            if not mapped:
                raise DataError(f"{path}: {why_refused(error)}") from None
        except Exception as error:
            raise DataError(f"{path}: {why_refused(error)}") from None
    raise AssertionError("unreachable")


def why_refused(error: BaseException) -> str:
    """Say in one line why torch did not load a file: what its pickle wants, and what to do.

    torch's own message is long, coloured for terminals, and advises to load the file unsafely.
    """
    text = _CONTROL.sub("", str(error))
    if "eights only load failed" not in text:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return f"cannot be read as a file of tensors: {type(error).__name__}: {first}"[:300]
    if not (wanted := _GLOBAL.search(text)):
        return "cannot be read as a file of tensors: damaged, or no file that torch saved"
    return (
        f"refused: the pickle in it wants to run {wanted[1]}, which weights do not need. "
        "Get the file again from its authors, if they have it as .safetensors; or, if you "
        "trust it, load it with "
        "torch.load(..., weights_only=False) outside emolib and save its tensors with "
        "safetensors.torch.save_file"
    )
