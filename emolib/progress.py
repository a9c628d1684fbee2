"""Progress bars that also tell a parent process how far a stage is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
FILE_VARIABLE = "EMOLIB_PROGRESS"
_EVERY_S = 0.5


class Progress:
    """One bar: tqdm for people, and a small JSON file for ``emolib run``'s status line.

    Attributes:
        desc: What is being counted, e.g. "captions".
        total: How many there will be; None when unknown.
        n: How many are done; ``done`` of them already were at the start.
    """

    def __init__(
        self, desc: str, total: int | None = None, *, done: int = 0, unit: str = "it"
    ) -> None:
        self.desc, self.total, self.n = desc, total, done
        # Ten seconds between lines keeps executed notebooks small.
        quiet = FILE_VARIABLE in os.environ
        self._bar = tqdm(
            total=total, desc=desc, initial=done, unit=unit, mininterval=10 if quiet else 0.5
        )
        self._file = Path(os.environ[FILE_VARIABLE]) if quiet else None
        self._told = 0.0
        self._start, self._before = time.monotonic(), done
        self._tell(force=True)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more; ``note`` (short) stands behind the bar."""
        self.n += n
        self._bar.update(n)
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._tell(note=note)

    def follow(self, n: int, total: int, values: Mapping[str, float]) -> None:
        """Go to ``n`` of ``total``, naming the loss: the callback a training reports to."""
        if total != self.total:
            self.total = total
            self._bar.reset(total)
            self.n = 0
        loss = values.get("loss")
        self.advance(n - self.n, note="" if loss is None else f"loss {loss:.3f}")

    def _tell(self, *, note: str = "", force: bool = False) -> None:
        now = time.monotonic()
        if self._file is None or (now - self._told < _EVERY_S and not force):
            return
        self._told = now
        left = None
        if self.total and self.n > self._before:
            left = (now - self._start) / (self.n - self._before) * (self.total - self.n)
        state = {"desc": self.desc, "n": self.n, "total": self.total, "left_s": left, "note": note}
        temporary = self._file.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(state), encoding="utf-8")
            temporary.replace(self._file)
        except OSError:
            self._file = None  # a status line is not worth stopping a run for

    def close(self) -> None:
        """Finish the bar."""
        self._tell(force=True)
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def track(items: Iterable[T], desc: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` under a progress bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(desc, total) as progress:
        for item in items:
            yield item
            progress.advance()
