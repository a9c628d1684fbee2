"""The append-only ledger: every answer a model ever gave, found again by what it depends on.

One JSON object a line. A line is written in one go and never changed; killed at any byte, the
next opening skips the broken tail and loses at most the row that was being written. A later
row with the same key replaces an earlier one when reading.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emolib.errors import LedgerError

Row = dict[str, Any]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


class Ledger:
    """Rows by key, on disk at once.

    Several processes may append to one file; each sees the others' rows when it opens. Memory
    and opening time grow with the number of rows (about 1 kB and 10 µs each).

    Attributes:
        path: The file; its folder is made when needed.
        broken: Lines that could not be read when the file was opened (cut-off writes).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = 0
        self._rows: dict[str, Row] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read()
            self._fd = os.open(path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise LedgerError(f"{path}: cannot be opened: {error.strerror or error}") from error

    def _read(self) -> None:
        if not self.path.exists():
            return
        foreign = False
        with self.path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line, parse_constant=_refuse)
                    self._rows[row["key"]] = row
                except (ValueError, RecursionError):
                    self.broken += bool(line.strip())
                    # A cut-off row begins like one; the very first row may be cut off, too.
                    foreign |= bool(line.strip()) and not line.startswith(b"{")
                except (KeyError, TypeError):
                    self.broken += 1
                    foreign = True
        if foreign and not self._rows:
            raise LedgerError(f"{self.path}: no line of it is a ledger row; is it a ledger?")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def get(self, key: str) -> Row | None:
        """The newest row with this key, or None."""
        return self._rows.get(key)

    def settled(self, key: str) -> bool:
        """Whether the row need not be computed again: an answer, or an error that will stay.

        Rows whose error was marked transient (a server that was down) are not settled.
        """
        row = self._rows.get(key)
        return row is not None and not (row.get("error") and row.get("transient"))

    def put(self, row: Row) -> None:
        """Append one row; it is in the file when this returns.

        Raises:
            LedgerError: the row cannot be written (disk full); what was written before stays.
            ValueError: the row has no key or holds NaN.
        """
        if not isinstance(row.get("key"), str):
            raise ValueError("a ledger row needs a 'key'")
        data = json.dumps(row, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                # A killed writer may have left half a line: end it, so that ours starts afresh.
                size = os.fstat(self._fd).st_size
                torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
                line = (b"\n" if torn else b"") + data + b"\n"
                while line:
                    line = line[os.write(self._fd, line) :]
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError as error:
            raise LedgerError(f"{self.path}: row not written: {error.strerror or error}") from error
        # What a later process will read: half characters replaced, tuples as lists.
        self._rows[row["key"]] = json.loads(data)

    def close(self) -> None:
        """Flush to disk and close the file."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
