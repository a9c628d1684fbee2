"""Run one notebook through papermill, in this process or one of its own, and show how far it is."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

from emolib import runs
from emolib.params import profiles
from emolib.processes import cores, die_with_parent
from emolib.progress import FILE_VARIABLE

_PROGRESS = ".progress.json"
#: Threads of OpenMP; kernels inherit it.
_THREADS = "OMP_NUM_THREADS"
_GRACE_S = 5.0


def execute(root: Path, profile: str, stage: str, folder: Path, inputs: Mapping[str, str]) -> str:
    """Run a stage's notebook into its run folder; say why it failed, "" when it did not.

    Args:
        root: Project root; the kernel works there.
        profile: Folder under ``params/``.
        stage: The notebook's name without suffix.
        folder: Its run folder.
        inputs: Input parameters: earlier stages' run folders.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    # It calls parameters unknown that stand in _base.yaml and not in the notebook's cell.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    own = profiles.stage_source(root, profile, stage).values
    before = os.environ.get(FILE_VARIABLE)
    os.environ[FILE_VARIABLE] = str(folder / _PROGRESS)
    try:
        papermill.execute_notebook(
            str(root / "notebooks" / f"{stage}.ipynb"),
            str(folder / "notebook.ipynb"),
            parameters={**own, **inputs, "run_dir": str(folder)},
            kernel_name="python3",
            cwd=str(root),
            progress_bar=False,
            log_output=False,
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except PapermillExecutionError as problem:
        return f"{problem.ename}: {problem.evalue}"
    except Exception as problem:  # a dead kernel comes in several shapes
        return f"{type(problem).__name__}: {problem}"
    finally:
        (folder / _PROGRESS).unlink(missing_ok=True)
        if before is None:
            del os.environ[FILE_VARIABLE]
        else:
            os.environ[FILE_VARIABLE] = before
    return "" if runs.is_finished(folder) else "the notebook ended without a result"


@dataclass(slots=True)
class Running:
    """A stage at work in a process of its own; it ends with this process.

    Attributes:
        folder: Its run folder.
        process: The process.
        answer: Readable when it has ended (``multiprocessing.connection.wait``).
        started: Monotonic time, s.
    """

    folder: Path
    process: BaseProcess
    answer: Connection
    started: float = field(default_factory=time.monotonic)

    def stop(self) -> None:
        """End it: its kernel notices and ends, too."""
        self.process.join(_GRACE_S)  # Ctrl-C reached it as well: it may be closing its kernel
        self.process.kill()
        self.process.join()

    def result(self) -> str:
        """Wait for the end: why it failed, "" when it did not."""
        error = None
        with contextlib.suppress(EOFError):
            error = self.answer.recv()
        self.process.join()
        if error is not None:
            return str(error)
        code = self.process.exitcode
        return f"its process was ended by signal {-code}" if code and code < 0 else "interrupted"


def begin(
    root: Path, profile: str, stage: str, folder: Path, inputs: Mapping[str, str], *, jobs: int
) -> Running:
    """Run :func:`execute` in a process of its own, with its share of the cores."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_work,
        args=(theirs, os.getpid(), jobs, root, profile, stage, folder, dict(inputs)),
        name=stage,
        daemon=True,
    )
    process.start()
    theirs.close()  # so that the end of the other process is the end of the pipe
    return Running(folder, process, ours)


def _work(
    answer: Connection,
    parent: int,
    jobs: int,
    root: Path,
    profile: str,
    stage: str,
    folder: Path,
    inputs: dict[str, str],
) -> None:
    die_with_parent(parent)
    # Two stages with a thread for every core each would wait for one another.
    os.environ.setdefault(_THREADS, str(max(1, cores() // jobs)))
    with contextlib.suppress(KeyboardInterrupt):
        answer.send(execute(root, profile, stage, folder, inputs))


class StatusLine:
    """Follows kernels' progress files: one line that changes on a terminal, else nothing.

    Args:
        out: Where it goes.
    """

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._live = self._out.isatty()
        self._lock = threading.Lock()
        self._shown: dict[str, tuple[str, Path, float]] = {}
        self._stop = threading.Event()

    def begin(self, stage: str, label: str, title: str, folder: Path) -> None:
        """Follow a stage; where the line cannot change, say once that it has begun."""
        with self._lock:
            self._shown[stage] = (f"{label}  {title}", folder / _PROGRESS, time.monotonic())
        if not self._live:
            print(f"{label}  {title} …", file=self._out, flush=True)

    def end(self, stage: str) -> None:
        """Follow it no longer."""
        with self._lock:
            self._shown.pop(stage, None)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            self._clear()
            print(text, file=self._out, flush=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[StatusLine]:
        """Keep the line up to date while the block runs."""
        thread = threading.Thread(target=self._follow, daemon=True)
        if self._live:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            if self._live:
                thread.join()
                self._clear()

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=self._out, flush=True)

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            with self._lock:
                parts = [_line(*shown) for shown in self._shown.values()]
                width = max(20, os.get_terminal_size(self._out.fileno()).columns - 1)
                if len(parts) > 1:  # each its part of the line
                    parts = [part[: (width - 3 * len(parts)) // len(parts)] for part in parts]
                line = " | ".join(parts)[:width]
                print(f"\r\x1b[2K{line}", end="", file=self._out, flush=True)


def _line(head: str, file: Path, started: float) -> str:
    state = _read_state(file)
    done = f"{state['n']}/{state['total']}" if state.get("total") else str(state.get("n", ""))
    left = f", {state['left_s']:.0f} s left" if state.get("left_s") else ""
    tail = f"  {state['desc']} {done}{left}" if state else ""
    return f"{head}  {time.monotonic() - started:.0f} s{tail}"


def _read_state(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
