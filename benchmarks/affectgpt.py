"""How fast AffectGPT trains: with cached towers, without, and as a plain loop.

Three ways to train on the same clips of the demo world:

* plain: one sample a forward pass, media decoded and encoded anew each time, as the published
  code reads them;
* uncached: batches, media decoded and encoded each time;
* cached: batches, the frozen towers' outputs from disk. Filling the cache is timed by itself: it
  is paid once, not once an epoch.

The tiny model on a CPU, in turn in one process, so that what else runs hits all alike::

    python benchmarks/affectgpt.py

The published sizes with random weights, one way after the other, on one GPU of 80 GB or more (16 GB
of weights, made there; activations of 16 rows without gradient checkpointing, some 50 GB; no disk
space to speak of). First with two layers of each tower, which meets every fault the whole would
meet but memory, then the whole, some nine minutes on an H200 (estimated, never tried)::

    python benchmarks/affectgpt.py --full --swift --layers 2 --batches 4 --seconds 2 --out try.json
    python benchmarks/affectgpt.py --full --swift --resume --out affectgpt_benchmark_full.json

Half of the rows are captioned pictures (the published share); descriptions have 300 tokens in the
mean, captions 80. Each measurement has a process of its own and is written when it is taken:
``fill`` (the cache), ``cached_4``, ``cached_16``, ``checkpointed_16`` (what gradient checkpointing
costs and saves), ``uncached_4``, ``uncached_16``, ``plain_1``, and with ``--swift`` the training
stage itself, through our worker and ``swift sft`` with batch and checkpointing of profile h200, and
again without checkpointing (``swift_kept``). One that fails (or takes longer than ``--limit``)
leaves its error in the record and the others go on; ``--resume`` measures what is missing.
``--narrow`` runs all of it at the tiny sizes on any machine.

``llm_mfu`` is the arithmetic that the language model needs over what the GPU could do in the time;
padding and what checkpointing computes again are not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import affectgpt_model as affectgpt
import affectgpt_phases
import measuring
import numpy as np
import torch
from affectgpt_phases import Loop, Media, fill, measure
from measuring import Record

from emolib.engines.tiny import tiny_folder
from emolib.files import write_json
from emolib.models.affectgpt import AffectGPTForConditionalGeneration, AffectGPTProcessor
from emolib.models.affectgpt.cache import FeatureCache
from emolib.processes import die_with_parent

TARGET = 30.0  # samples a second on one H200; the paper's run made about 3.4 an A800


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--clips", type=int, default=48, help="clips of the demo world")
    made.add_argument("--work", type=Path, default=Path("outputs"), help="demo data, models")
    made.add_argument("--batch", type=int, default=4, help="without --full")
    made.add_argument("--epochs", type=int, default=5, help="without --full: counted each way")
    made.add_argument("--full", action="store_true", help="published sizes, random weights")
    full = made.add_argument_group("with --full")
    full.add_argument("--narrow", action="store_true", help="the tiny sizes instead, any device")
    full.add_argument("--layers", type=int, default=0, help="layers of each tower; 0 = all")
    full.add_argument("--batches", type=int, nargs="+", default=[4, 16], help="sizes of batches")
    full.add_argument("--pictures", type=float, default=0.5, help="share of captioned pictures")
    full.add_argument("--answer", type=int, default=300, help="mean tokens of a description")
    full.add_argument("--caption", type=int, default=80, help="mean tokens of a caption")
    full.add_argument("--seconds", type=float, default=20, help="to train for, each measurement")
    full.add_argument("--steps", type=int, default=1000, help="at most, each measurement")
    full.add_argument("--swift", action="store_true", help="measure the training stage as well")
    full.add_argument("--swift-steps", type=int, default=12, help="its steps")
    full.add_argument(
        "--features", type=Path, default=Path("outputs/benchmark-features"), help="the cache"
    )
    measuring.add_options(made, limit=150)
    return made


def in_a_process(phase: str, limit: float) -> Record:
    """Take one measurement in a fresh process with this one's options."""
    return measuring.in_a_process(__file__, phase, limit)


def ratios(record: Record) -> dict[str, float]:
    """What the measurements say beside each other, as far as they were taken."""
    rates = {
        name: part["samples_per_second"]
        for name, part in record.items()
        if isinstance(part, dict) and "samples_per_second" in part
    }

    def best(way: str) -> float | None:
        return max((rate for name, rate in rates.items() if name.startswith(way)), default=None)

    found = {}
    for above, below in (("cached", "uncached"), ("cached", "plain"), ("swift", "cached")):
        one, other = best(above), best(below)
        if one and other:
            found[f"{above}_over_{below}"] = one / other
    if (cached := best("cached")) is not None:
        found["cached_over_target"] = cached / TARGET
    return found


def together(args: argparse.Namespace) -> Record:
    """The three ways at the tiny size, in turn, each counted after an epoch that is not."""
    folder = tiny_folder("affectgpt", args.work / "models")
    processor = AffectGPTProcessor.from_pretrained(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AffectGPTForConditionalGeneration.from_pretrained(folder).to(device)
    model.freeze_towers()
    model.train()
    model.gradient_checkpointing_disable()
    rows, _ = affectgpt.write_rows(args.work, processor, args.clips, 0.0, 0, 0)
    media = Media(rows, processor, device)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    with tempfile.TemporaryDirectory() as home:
        cache, filling = fill(rows, Path(home), model, processor)
        ways: dict[str, tuple[int, FeatureCache | None]] = {
            "plain": (1, None),
            "uncached": (args.batch, None),
            "cached": (args.batch, cache),
        }
        loop = Loop(model, media, order, args.batch)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.epochs + 1):
            for name, (size, kept) in ways.items():
                times[name].append(loop.epoch(order, size, kept))
    rates = {name: len(rows) / statistics.median(taken[1:]) for name, taken in times.items()}
    cpu = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    return {
        "command": f"python benchmarks/affectgpt.py --clips {args.clips} --batch {args.batch} "
        f"--epochs {args.epochs}",
        "size": "tiny:affectgpt",
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu,
        "note": "" if device == "cuda" else "no GPU was available; the full size was not run",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clips": len(rows),
        "batch": args.batch,
        "samples_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "cached_over_uncached": round(rates["cached"] / rates["uncached"], 2),
        "cached_over_plain": round(rates["cached"] / rates["plain"], 2),
        "seconds_to_fill_the_cache": round(filling["seconds"], 2),
    }


def main() -> int:
    """Measure and print one JSON record; 1 when a measurement failed."""
    args = parser().parse_args()
    if not args.full:
        record = together(args)
        print(record)
        if args.out is not None:
            write_json(args.out, record)
        return 0
    if args.resume and not args.out:
        raise SystemExit("--resume needs --out")
    cuda = torch.cuda.is_available()
    if not cuda and not (args.narrow or args.layers):
        raise SystemExit("--full needs a GPU of 40 GB or more; there is none on this machine")
    if args.phase:
        if args.parent:
            die_with_parent(args.parent)  # an orphan would keep the whole GPU
        return measuring.keep(args, measuring.attempt(partial(measure, args)))
    names = affectgpt_phases.phases(args.batches, args.swift)
    _, processor = affectgpt.design(args.work, args.narrow, args.layers)
    print("demo clips ...", file=sys.stderr, flush=True)
    affectgpt.written(args, processor)  # made once, before any clock runs
    record = measuring.begun(__file__, args, cuda, names)
    record["target_samples_per_second"] = TARGET
    return measuring.take_each(args, record, names, in_a_process, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
