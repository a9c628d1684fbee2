"""A process that decodes for another: ``python -m emolib.media.worker``, jobs on standard input.

Nothing it is sent or sends is code. It ends when its standard input does, and by itself when a
job takes much longer than its time limit: a parent that was killed leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emolib.errors import MediaError, NoAudioError
from emolib.media import wire
from emolib.media.audio import read_audio, read_channels
from emolib.media.video import probe, read_frames, sample_frames

OPERATIONS: dict[str, Callable[..., Any]] = {
    "probe": probe,
    "read_frames": read_frames,
    "sample_frames": sample_frames,
    "read_audio": read_audio,
    "read_channels": read_channels,
}
# Seconds beyond the time limit after which a job ends its own process.
GRACE_S = 30.0


def main() -> None:
    """Answer jobs, one JSON line each, until standard input ends."""
    # What a codec library prints must not get into the answers.
    out = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def write(data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(out, view) :]

    wire.send(write, {"ready": os.getpid()})
    for line in sys.stdin.buffer:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["timeout_s"] + GRACE_S)
        message, value = _do(job)
        wire.send(write, message, value)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _do(job: dict[str, Any]) -> tuple[wire.Message, Any]:
    """Do one job; whatever goes wrong is an answer."""
    try:
        os.chdir(job["cwd"])
        return {}, OPERATIONS[job["operation"]](Path(job["path"]), **job["options"])
    except NoAudioError as error:
        return {"error": "no audio", "message": str(error)}, None
    except MediaError as error:
        return {"error": "media", "message": str(error)}, None
    except MemoryError:
        return {"error": "other", "message": "not enough memory"}, None
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return {"error": "other", "message": f"{type(error).__name__}: {error} ({where})"}, None


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(0)  # the parent is gone
