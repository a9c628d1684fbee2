"""What lies in a training's folder: whose it is, and how far it got."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from emolib.errors import TrainingError
from emolib.files import read_json, write_json
from emolib.training.process import COMPLETE


def claim(file: Path, request: dict[str, Any]) -> None:
    """Note in ``file`` what is trained beside it; refuse a folder that holds something else.

    Raises:
        TrainingError: the folder holds a training with other settings; names them.
    """
    if not file.is_file():
        write_json(file, request)
        return
    before = read_json(file)
    if before != request:
        parts = [k for k in request if before.get(k) != request[k]]
        raise TrainingError(
            f"{file.parent} holds a training with other settings ({', '.join(parts)} differ): "
            "use another folder or remove this one"
        )


def last_checkpoint(out: Path) -> Path | None:
    """The newest complete checkpoint; what a kill left half written is removed."""
    complete = []
    for folder in out.glob("checkpoint-*"):
        if (folder / COMPLETE).is_file():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The step a ``checkpoint-<step>`` folder was written at."""
    return int(checkpoint.name.rsplit("-", 1)[1])
