"""Atomic writes and JSON-lines reading, used by everything that leaves files behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
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
