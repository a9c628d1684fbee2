"""Files that hung or crashed a decoder: a list on disk, so that no run falls over them twice.

One JSON object a line, append-only. A file counts as the same while its content does, wherever
it lies. It is tried again when its content changes, when ``decode.retry`` asks for it, or when
the list is deleted.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from emolib.errors import LedgerError
from emolib.hashing import sha_file
from emolib.params.media import DecodeParams

# Settings travel in the environment, so that a training or cluster process started from here
# decodes the same way.
VARIABLE = "EMOLIB_DECODE"


@dataclass(frozen=True, slots=True)
class Fault:
    """What one file did to a decoder.

    Attributes:
        file: Where it lay.
        sha: SHA-256 of its bytes.
        size: In bytes.
        fault: It "hung" or "crashed".
        detail: The signal, or the time limit.
        operation: What was asked of it.
        when: UTC.
    """

    file: str
    sha: str
    size: int
    fault: Literal["hung", "crashed"]
    detail: str
    operation: str
    when: str

    def __str__(self) -> str:
        return f"{self.detail} in {self.operation}"


class Quarantine:
    """The list in one file; several processes may add to it.

    Cost of a look-up: nothing while no listed file has this size, else one read of the file.

    Args:
        path: The list; None keeps it in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._faults: dict[str, Fault] = {}
        self._read = -1

    def __len__(self) -> int:
        self._refresh()
        return len(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        self._refresh()
        return iter(list(self._faults.values()))

    def find(self, file: Path) -> Fault | None:
        """What is known against a file with this content, if anything."""
        self._refresh()
        try:
            size = file.stat().st_size
            if not any(fault.size == size for fault in self._faults.values()):
                return None
            return self._faults.get(sha_file(file))
        except OSError:
            return None

    def add(
        self, file: Path, fault: Literal["hung", "crashed"], detail: str, operation: str
    ) -> Fault | None:
        """List a file; None when it is gone or cannot be read.

        Raises:
            LedgerError: the list cannot be written.
        """
        try:
            sha, size = sha_file(file), file.stat().st_size
        except OSError:
            return None
        when = datetime.now(UTC).isoformat(timespec="seconds")
        row = Fault(str(file), sha, size, fault, detail, operation, when)
        if self.path is not None:
            line = json.dumps(asdict(row)).encode() + b"\n"
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as out:
                    fcntl.flock(out, fcntl.LOCK_EX)
                    out.write(line)
            except OSError as error:
                why = error.strerror or error
                raise LedgerError(f"{self.path}: cannot be written: {why}") from error
        self._faults[sha] = row
        return row

    def _refresh(self) -> None:
        """Read the file again when it has changed; lines that are no faults are passed over."""
        if self.path is None:
            return
        try:
            size = self.path.stat().st_size
            if size == self._read:
                return
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            self._faults, self._read = {}, -1
            return
        except OSError as error:
            why = error.strerror or error
            raise LedgerError(f"{self.path}: cannot be read: {why}") from error
        self._faults, self._read = {}, size
        for line in lines:
            try:
                fault = Fault(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self._faults[fault.sha] = fault


@dataclass(frozen=True, slots=True)
class Settings:
    """How files are decoded in this process and in those it starts.

    Attributes:
        params: Time limit and number of workers.
        file: The quarantine's; None = in memory.
    """

    params: DecodeParams
    file: Path | None


_met: dict[str, Fault] = {}


def path_for(outputs: Path, profile: str) -> Path:
    """The list that all runs of a profile share."""
    return outputs / profile / "quarantine.jsonl"


def supervise(params: DecodeParams, file: Path | None) -> None:
    """Decode in worker processes from now on, here and in processes started from here.

    A run begins with it: :func:`met` forgets.

    Args:
        params: How; ``isolate: false`` switches back to decoding in the process itself.
        file: The quarantine's; None keeps it in memory.
    """
    _met.clear()
    if not params.isolate:
        os.environ.pop(VARIABLE, None)
        return
    where = None if file is None else str(file.absolute())
    os.environ[VARIABLE] = json.dumps({"params": params.model_dump(mode="json"), "file": where})


@contextmanager
def supervised(params: DecodeParams, file: Path | None) -> Iterator[None]:
    """:func:`supervise` for the length of a block."""
    before = os.environ.get(VARIABLE)
    supervise(params, file)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def settings() -> Settings | None:
    """The settings in force; None = files are decoded in this process."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    read = json.loads(text)
    where = read["file"]
    return Settings(DecodeParams(**read["params"]), None if where is None else Path(where))


def meet(fault: Fault) -> None:
    """Note that a quarantined file was asked for in this process."""
    _met[fault.sha] = fault


def met() -> list[dict[str, Any]]:
    """The quarantined files this process was asked for, for a result file."""
    rows = sorted(_met.values(), key=lambda fault: (fault.file, fault.sha))
    return [{"file": Path(row.file).name, "sha": row.sha, "why": str(row)} for row in rows]
