"""Take part in a training of several machines.

On each machine but the first::

    python -m emolib.training.join outputs/PROFILE/trainings

The first machine runs the notebook. When its training starts, it leaves its command line in the
training's folder below that one, which all machines share; this program waits for it and starts
the same worker here. It ends with that training; after an interruption start it again, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from emolib.engines.gpus import VARIABLE, choose_gpus, gpu_count
from emolib.errors import ParamsError
from emolib.files import read_json, write_json
from emolib.training.launch import LaunchPlan, limited

_FILE = "join.json"
_POLL_S = 0.5
# What the worker needs of the first machine's environment; devices and threads are each one's own.
_SHARED = ("HF_", "USE_HF", "LOG_LEVEL", "TOKENIZERS_", "DO_NOT_TRACK", "TRANSFORMERS_", "SWIFT_")


@contextmanager
def announced(
    command: list[str], environ: Mapping[str, str], plan: LaunchPlan, device: str, out: Path
) -> Iterator[None]:
    """Leave the command for the other machines while a training runs; nothing with one node."""
    if plan.nodes == 1:
        yield
        return
    file = out / _FILE
    shared = {k: v for k, v in environ.items() if k.startswith(_SHARED) and "TOKEN" not in k[3:]}
    # Each machine has GPUs of its own; where this one trains on them, so must the others.
    device = device if device.startswith("cuda") else "cuda" if plan.visible else "cpu"
    own = {"device": device, "processes": plan.processes}
    write_json(file, {"arguments": command[1:], "environment": shared} | own)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def main() -> None:
    """Wait for the first machine, then become its training's worker on this one."""
    parser = argparse.ArgumentParser(
        prog="python -m emolib.training.join",
        description="Take part in a training of several machines (LoraParams.nodes > 1).",
    )
    parser.add_argument(
        "store", type=Path, help="the profile's trainings, e.g. outputs/paper/trainings"
    )
    parser.add_argument(
        "--patience", type=float, default=3600.0, help="wait so many seconds (default: 3600)"
    )
    args = parser.parse_args()
    deadline = time.monotonic() + args.patience
    print(f"waiting for a training in {args.store}", flush=True)
    while not (found := sorted(args.store.glob(f"*/{_FILE}"))):
        if time.monotonic() > deadline:
            raise SystemExit(f"no training began in {args.store} within {args.patience:g} s")
        time.sleep(_POLL_S)
    if len(found) > 1:
        names = ", ".join(file.parent.name for file in found)
        raise SystemExit(f"{args.store}: several trainings wait for this machine: {names}")
    words = read_json(found[0])
    device, environ = words["device"], os.environ | words["environment"]
    try:
        gpus = 0 if device == "cpu" else gpu_count()
        visible = choose_gpus(device, words["processes"], gpus, environ.get(VARIABLE))
    except ParamsError as error:
        raise SystemExit(f"this machine cannot take part: {error}") from None
    command = [sys.executable, *words["arguments"]]
    os.execve(sys.executable, command, limited(environ, visible))


if __name__ == "__main__":
    main()
