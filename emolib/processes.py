"""Work beside the caller: child processes that never outlive it, threads, cores for both."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_PR_SET_PDEATHSIG = 1


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Apply ``function`` to all items on so many threads.

    Results come in the items' order, with at most twice as many waiting as there are threads, so
    memory stays flat however many items there are. What has not begun when the caller stops
    asking never begins.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when ``parent`` ends, however it ends."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def tied(command: Sequence[str]) -> list[str]:
    """Write a command that ends with this process, however it ends."""
    return [sys.executable, "-m", "emolib.processes", str(os.getpid()), *command]


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, asking first; it must have been started in its own session."""
    if process.poll() is not None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(10)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def search_path() -> str:
    """Give the ``PYTHONPATH`` with which a child process that starts anywhere finds emolib."""
    own = Path(__file__).resolve().parents[1]
    given = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    # Installed packages are found anyway, and must not come before the standard library.
    return os.pathsep.join(given if own.name.endswith("-packages") else [str(own), *given])


if __name__ == "__main__":  # see tied
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
