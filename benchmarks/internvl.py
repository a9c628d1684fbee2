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
from functools import partial
from typing import Any

import internvl_model as internvl
import measuring
import torch
from internvl_phases import PHASES, measure

from emolib.processes import die_with_parent


def in_a_process(phase: str, limit: float) -> dict[str, Any]:
    """Take one measurement in a fresh process with this one's options."""
    return measuring.in_a_process(__file__, phase, limit)


def attempt(args: argparse.Namespace) -> dict[str, Any]:
    """Take one measurement in this process."""
    return measuring.attempt(lambda: measure(args))


def ratios(record: dict[str, Any]) -> dict[str, float]:
    """What the phases say beside each other, as far as both were measured."""
    ratio = partial(measuring.ratio, record)
    # on a busy machine processor time tells more than the clock; on a GPU only the clock does
    found = {
        "batched_over_one_by_one": ratio("batched", "one_by_one", "clips_per_s"),
        "batched_over_one_by_one_cpu": ratio("batched", "one_by_one", "clips_per_cpu_s"),
        "ours_over_swift_defaults": ratio("lora_swift", "lora", "row_s"),
        "ours_over_swift_defaults_cpu": ratio("lora_swift", "lora", "row_cpu_s"),
        "memory_ours_by_swift_defaults": ratio("lora", "lora_swift", "peak_memory_bytes"),
    }
    return {name: value for name, value in found.items() if value is not None}


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
    measuring.add_options(made, limit=1800)
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
        return measuring.keep(args, attempt(args))
    cuda = torch.cuda.is_available() and args.device != "cpu"
    record = measuring.begun(__file__, args, cuda, PHASES)
    return measuring.take_each(args, record, args.phases, in_a_process, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
