"""Runs a command and ends it, with all its children, when whoever started us is gone.

Started by :mod:`emolib.engines.launch` as ``python keeper.py COMMAND ...`` with a pipe as
standard input: the pipe ends when its other side does, even by ``kill -9``. A signal sent to a
parent's death would end with the thread that started the command, and would miss grandchildren.
Imports nothing of this project, so that it starts in an environment of any kind.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

_LOOK_S = 0.2
_GRACE_S = 10


def main() -> int:
    """Run ``sys.argv[1:]``; returns its exit code."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_end(child)))
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        if readable and not os.read(0, 1):
            return _end(child)
    return child.returncode


def _end(child: subprocess.Popen[bytes]) -> int:
    """Ask the command's whole group to end, then make it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        try:
            return child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    return 1


if __name__ == "__main__":
    sys.exit(main())
