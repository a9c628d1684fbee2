"""What benchmarks of whole models share: a process a measurement, a record written after each.

A measurement that fails, or takes longer than ``--limit``, leaves its error in the record and the
others go on; with ``--resume`` the same command measures what the record lacks. So a machine lent
for ten minutes at a time is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from emolib.files import read_json, write_json

Record = dict[str, Any]

NO_GPU = "No GPU was available. These figures check the benchmark; they say nothing about one."
# Settings that change no figure.
ITSELF = ("out", "parent", "phase", "phases", "resume", "limit")
# Dense bfloat16 operations a second, from the makers' data sheets; the first name that the
# device's holds. Cards with less power for the same chip come first.
PEAK = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12, "H800 PCIe": 756e12,
    "H100": 989e12, "H200": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12,
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser, limit: float) -> None:
    """The options that every such benchmark has; ``limit`` is the default of ``--limit``."""
    parser.add_argument("--phase", help="take one measurement in this process")
    parser.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=limit, help="seconds a measurement may take")
    parser.add_argument("--resume", action="store_true", help="measure what --out lacks")
    parser.add_argument("--out", type=Path, help="write the record to this file")


def in_a_process(script: str, phase: str, limit: float) -> Record:
    """Take one measurement in a fresh process with this one's options.

    Returns:
        What was measured, or ``{"error": ...}``.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phase.json"
        command = [sys.executable, script, *sys.argv[1:], "--phase", phase, "--out", str(file)]
        command += ["--parent", str(os.getpid())]
        # one allocation of some GB must not fail because free memory lies in pieces
        environ = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"} | os.environ
        try:
            code = subprocess.run(
                command, env=environ, stdout=sys.stderr, timeout=limit, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return {"error": f"took longer than {limit:g} s"}
        if not file.is_file():
            return {"error": f"ended with exit code {code} and no result"}
        found: Record = json.loads(file.read_text(encoding="utf-8"))
    return found


def attempt(measure: Callable[[], Record]) -> Record:
    """Take one measurement in this process; a fault is told in full and kept in one line."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def keep(args: argparse.Namespace, record: Record) -> int:
    """Print and write what one process measured; 1 when it failed."""
    if args.out:
        write_json(args.out, record)
    print(json.dumps(record, indent=2))
    return int("error" in record)


def begun(script: str, args: argparse.Namespace, cuda: bool, phases: Iterable[str]) -> Record:
    """The record before anything is measured; with ``--resume`` what an earlier run measured.

    Raises:
        SystemExit: that run had other settings or was on another device.
    """
    settings = {k: v for k, v in vars(args).items() if k not in ITSELF}
    same = {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()},
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    record = {
        "command": shlex.join(["python", f"benchmarks/{Path(script).name}", *sys.argv[1:]]),
        "note": "" if cuda else NO_GPU,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        **same,
    }
    if args.resume and args.out.is_file():
        before = read_json(args.out)
        if other := [key for key, value in same.items() if before.get(key) != value]:
            raise SystemExit(f"{args.out} has other {', '.join(other)}: name another --out")
        record |= {p: before[p] for p in phases if "error" not in before.get(p, {"error": ""})}
    return record


def take_each(
    args: argparse.Namespace,
    record: Record,
    phases: Sequence[str],
    one: Callable[[str, float], Record],
    ratios: Callable[[Record], dict[str, float]],
) -> int:
    """Take what ``record`` lacks of ``phases``, and write it after each; 1 when one failed."""
    for phase in phases:
        if phase not in record:
            print(f"{phase} ...", file=sys.stderr, flush=True)
            record[phase] = one(phase, args.limit)
            record["ratios"] = ratios(record)
            if args.out:
                write_json(args.out, record)
    print(json.dumps(record, indent=2))
    return int(any("error" in record[phase] for phase in phases))


def ratio(record: Record, above: str, below: str, figure: str) -> float | None:
    """One figure of two measurements, divided; None where one is not there."""
    pair = [record.get(phase, {}).get(figure) for phase in (above, below)]
    return pair[0] / pair[1] if all(pair) else None


def wait() -> None:
    """Let the device finish, so that a clock says what was done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """Bytes at the highest point so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


def peak_speed() -> float | None:
    """What the GPU could do, operations a second; None where that is not known."""
    return peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def peak_of(name: str) -> float | None:
    """Peak of the GPU that torch calls ``name``; None where that is not known."""
    return next((speed for part, speed in PEAK.items() if part in name), None)


class Steps:
    """Times every optimiser step of a ``swift sft`` in this process.

    Attributes:
        seconds: From the end of the step before to the end of this one: rows read and computed.
        computing: The part in which rows were computed.
        cpu: Processor time of the same, of this process.
        shapes: Shape of every batch of token ids.
        model: The model being trained.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.computing: list[float] = []
        self.cpu: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self.model: Any = None

    def watch(self, trainer: Any) -> None:
        """Follow a trainer from now on."""
        from transformers import TrainerCallback

        steps, step = self, trainer.training_step
        self.model = trainer.model

        class Clock(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                wait()
                self.ended, self.cpu = time.perf_counter(), time.process_time()

            def on_step_begin(self, *_: Any, **__: Any) -> None:
                wait()  # the Trainer has read the rows of the whole step by now
                self.start = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                wait()
                now, used = time.perf_counter(), time.process_time()
                steps.seconds.append(now - self.ended)
                steps.computing.append(now - self.start)
                steps.cpu.append(used - self.cpu)
                self.ended, self.cpu = now, used

        def counted(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            self.shapes.append(tuple(inputs["input_ids"].shape))
            return step(model, inputs, *rest)

        trainer.training_step = counted
        trainer.add_callback(Clock())
