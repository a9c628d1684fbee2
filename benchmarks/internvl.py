"""How fast converted InternVL runs: answers one by one and in batches, and a LoRA step.

Random weights are made on the device, so no checkpoint is needed; speed does not depend on
their values. On two CPU cores, in two minutes::

    python benchmarks/internvl.py

V1.5 at full size (26B, bfloat16) needs one GPU of 80 GB or more: 52 GB of weights, some 75 GB with
the LoRA step; no disk space to speak of. Answers about six frames, LoRA rows of 8,192 tokens (six
frames of five tiles and a text). First a minute with two layers of each tower, which meets every
fault the whole would meet but memory, then the whole, some seven minutes on an H100 (estimated)::

    full="--size 26b --device cuda --dtype bfloat16 --words 300 --new-tokens 128 --batch 8
          --tiles 5 --answer 464 --accumulate 4 --workers 4 --repeats 2"
    python benchmarks/internvl.py $full --layers 2 --out try.json
    python benchmarks/internvl.py $full --resume --out outputs/record/internvl_benchmark_26b.json

Four measurements, each in a process of its own so that peaks of memory do not mix: ``one_by_one``
and ``batched`` (greedy answers of a fixed length), ``lora`` (this project's recipe, through the
training worker) and ``lora_swift`` (``swift sft`` with nothing set but model, data, steps and
weight type: ms-swift's own defaults) over the same rows. Both trainings go through ms-swift's own
entry point. Clocks stop after the device has finished; the first step and the first answer are
left out. The record is written after every measurement; one that fails (or takes longer than
``--limit``) leaves its error there and the others go on. With ``--resume`` the same command
measures what the record lacks, so that a machine lent for ten minutes at a time is enough.

MFU is the arithmetic the model needs, over what the device could do in the time; what gradient
checkpointing computes again is not counted. ``mfu`` is of the whole step, the reading of images
included, ``mfu_computing`` without it. See ``internvl_model.flops``, which the tests compare with
torch's own counter. Wanted at full size: ``lora.mfu`` of at least 0.40, ``batched_over_one_by_one``
of at least 4.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import internvl_model as internvl
import torch
import transformers
from internvl_phases import PHASES, measure

from emolib.files import read_json, write_json
from emolib.processes import die_with_parent

NO_GPU = "No GPU was available. These figures check the benchmark; they say nothing about one."
_ITSELF = ("out", "parent", "phase", "phases", "resume", "limit")  # settings that change no figure


def in_a_process(phase: str, limit: float) -> dict[str, Any]:
    """Take one measurement in a fresh process with this one's options.

    Returns:
        What was measured, or ``{"error": ...}``.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phase.json"
        command = [sys.executable, __file__, *sys.argv[1:], "--phase", phase, "--out", str(file)]
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
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def attempt(args: argparse.Namespace) -> dict[str, Any]:
    """Take one measurement in this process; a fault is told in full and kept in one line."""
    try:
        return measure(args)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def ratios(record: dict[str, Any]) -> dict[str, float]:
    """What the phases say beside each other, as far as both were measured."""

    def ratio(above: str, below: str, figure: str) -> float | None:
        pair = [record.get(phase, {}).get(figure) for phase in (above, below)]
        return pair[0] / pair[1] if all(pair) else None

    # on a busy machine processor time tells more than the clock; on a GPU only the clock does
    found = {
        "batched_over_one_by_one": ratio("batched", "one_by_one", "clips_per_s"),
        "batched_over_one_by_one_cpu": ratio("batched", "one_by_one", "clips_per_cpu_s"),
        "ours_over_swift_defaults": ratio("lora_swift", "lora", "row_s"),
        "ours_over_swift_defaults_cpu": ratio("lora_swift", "lora", "row_cpu_s"),
        "memory_ours_by_swift_defaults": ratio("lora", "lora_swift", "peak_memory_bytes"),
    }
    return {name: value for name, value in found.items() if value is not None}


def begun(args: argparse.Namespace) -> dict[str, Any]:
    """The record before anything is measured; with ``--resume`` what an earlier run measured.

    Raises:
        SystemExit: that run had other settings or was on another device.
    """
    cuda = torch.cuda.is_available() and args.device != "cpu"
    same = {
        "settings": {k: v for k, v in vars(args).items() if k not in _ITSELF},
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    record = {
        "command": shlex.join(["python", "benchmarks/internvl.py", *sys.argv[1:]]),
        "note": "" if cuda else NO_GPU,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        **same,
    }
    if args.resume and args.out.is_file():
        before = read_json(args.out)
        if other := [key for key, value in same.items() if before.get(key) != value]:
            raise SystemExit(f"{args.out} has other {', '.join(other)}: name another --out")
        record |= {p: before[p] for p in PHASES if "error" not in before.get(p, {"error": ""})}
    return record


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--size", choices=sorted(internvl.SIZES), default="tiny")
    made.add_argument("--layers", type=int, default=0, help="layers a tower; 0 = all")
    made.add_argument("--device", default="cpu")
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    made.add_argument("--attention", choices=("eager", "sdpa"), default="sdpa")
    made.add_argument("--frames", type=int, default=6, help="frames of a clip")
    made.add_argument("--words", type=int, default=64, help="text tokens of a prompt")
    made.add_argument("--new-tokens", type=int, default=16, help="length of every answer")
    made.add_argument("--batch", type=int, default=8, help="clips answered at once")
    made.add_argument("--tiles", type=int, choices=(1, 5), default=1, help="tiles of a LoRA frame")
    made.add_argument("--answer", type=int, default=64, help="tokens of a LoRA row's answer")
    made.add_argument("--max-length", type=int, default=8192, help="longest LoRA row allowed")
    made.add_argument("--train-batch", type=int, default=1, help="our recipe: rows at once")
    made.add_argument("--accumulate", type=int, default=16, help="our recipe: batches a step")
    made.add_argument("--workers", type=int, default=0, help="our recipe: loading processes")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES, help="measure these")
    made.add_argument("--phase", choices=PHASES, help="take one measurement in this process")
    made.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)
    made.add_argument("--limit", type=float, default=1800, help="seconds a measurement may take")
    made.add_argument("--resume", action="store_true", help="measure what --out lacks")
    made.add_argument("--out", type=Path, help="write the record to this file")
    return made


def main() -> int:
    """Measure and print one JSON record; 1 when a measurement failed."""
    args = parser().parse_args()
    if args.resume and not args.out:
        raise SystemExit("--resume needs --out")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"--device {args.device}: torch {torch.__version__} sees no GPU")
    if args.phase:
        if args.parent:
            die_with_parent(args.parent)  # an orphan would keep the whole GPU
        record = attempt(args)
        if args.out:
            write_json(args.out, record)
        print(json.dumps(record, indent=2))
        return int("error" in record)
    record = begun(args)
    for phase in args.phases:
        if phase not in record:
            print(f"{phase} ...", file=sys.stderr, flush=True)
            record[phase] = in_a_process(phase, args.limit)
            record["ratios"] = ratios(record)
            if args.out:
                write_json(args.out, record)
    print(json.dumps(record, indent=2))
    return int(any("error" in record[phase] for phase in args.phases))


if __name__ == "__main__":
    raise SystemExit(main())
