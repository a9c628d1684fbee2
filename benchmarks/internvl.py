"""How fast converted InternVL runs: answers one by one and in batches, and a LoRA step.

Random weights are made on the device, so no checkpoint is needed; speed does not depend on
their values. On two CPU cores, in two minutes::

    python benchmarks/internvl.py

V1.5 at full size (26B, bfloat16; 52 GB of weights, some 80 GB with the LoRA step), answers about
six frames, LoRA rows of 8,192 tokens (six frames of five tiles and a text)::

    python benchmarks/internvl.py --size 26b --device cuda --dtype bfloat16 --attention sdpa \
        --words 300 --new-tokens 128 --batch 8 --tiles 5 --answer 464 --max-length 8192 \
        --out outputs/record/internvl_benchmark_26b.json

Four measurements, each in a process of its own so that peaks of memory do not mix: ``one_by_one``
and ``batched`` (greedy answers of a fixed length), ``lora`` (this project's recipe, through the
training worker) and ``lora_swift`` (``swift sft`` with nothing set but model, data, steps and
weight type: ms-swift's own defaults) over the same rows. Both trainings go through ms-swift's own
entry point. Clocks stop after the device has finished; the first step and the first answer are
left out.

MFU is the arithmetic the model needs, over what the device could do in the time; what gradient
checkpointing computes again is not counted. See ``internvl_model.flops``, which the tests compare
with torch's own counter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import internvl_model as internvl
import torch
import transformers

from emolib.engines.swift_setup import find_model, import_swift
from emolib.files import write_json
from emolib.params import ModelParams
from emolib.params.training import LoraParams
from emolib.training.process import build_command, build_environment

PHASES = ("one_by_one", "batched", "lora", "lora_swift")
# Dense bfloat16 operations a second, from the makers' data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A800": 312e12}
NO_GPU = "No GPU was available. These figures check the benchmark; they say nothing about one."


def sample(model: Any, batch: int, frames: int, words: int) -> dict[str, torch.Tensor]:
    """One batch of prompts: frames of one tile each and random words, as ids and pixels."""
    config, device = model.config, model.device
    generator = torch.Generator().manual_seed(0)
    low, high = config.image_token_id + 1, config.text_config.vocab_size
    text = torch.randint(low, high, (batch, words), generator=generator)
    image = torch.full((batch, frames * config.image_seq_length), config.image_token_id)
    ids = torch.cat([image, text], dim=1).to(device)
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if frames:
        side = config.vision_config.image_size[0]
        shape = (batch * frames, 3, side, side)
        made["pixel_values"] = torch.randn(shape, generator=generator).to(device, model.dtype)
    return made


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall-clock and processor time of ``work`` after one run to warm up."""
    times, cpu = [], []
    for _ in range(repeats + 1):
        _wait()
        start, used = time.perf_counter(), time.process_time()
        work()
        _wait()
        times.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return statistics.median(times[1:]), statistics.median(cpu[1:])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """Bytes at the highest point so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


def peak_speed() -> float | None:
    """What the GPU could do, operations a second; None where that is not known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((speed for part, speed in PEAK.items() if part in name), None)


def answers(args: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Greedy answers of fixed length to ``batch`` clips at once."""
    before, start = peak_memory(), time.perf_counter()
    dtype = getattr(torch, args.dtype)
    model = internvl.build(internvl.config_of(args.size), args.device, dtype, args.attention)
    _wait()
    built = time.perf_counter() - start
    given = sample(model, batch, args.frames, args.words)
    length = {"max_new_tokens": args.new_tokens, "min_new_tokens": args.new_tokens}
    with torch.inference_mode():
        whole, cpu = seconds(
            lambda: model.generate(**given, **length, do_sample=False), args.repeats
        )
        read, _ = seconds(lambda: model(**given, logits_to_keep=1), args.repeats)
    tokens = given["input_ids"].shape[1]
    work = internvl.flops(model, batch, args.frames, tokens, logits=1).forward
    peak = peak_speed()
    return {
        "clips": batch,
        "prompt_tokens": tokens,
        "new_tokens": args.new_tokens,
        "parameters": sum(w.numel() for w in model.parameters()),
        "build_s": built,
        "clips_per_s": batch / whole,
        "clips_per_cpu_s": batch / cpu,
        "new_tokens_per_s": batch * args.new_tokens / whole,
        "tokens_per_s": batch * (tokens + args.new_tokens) / whole,
        "prompt_s": read,
        "prompt_flops": work,
        "prompt_mfu": work / read / peak if peak else None,
        "memory_before_bytes": before,
        "peak_memory_bytes": peak_memory(),
    }


class Steps:
    """Times every optimiser step of a ``swift sft`` in this process."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self.model: Any = None

    def watch(self, trainer: Any) -> None:
        """Follow a trainer from now on."""
        from transformers import TrainerCallback

        steps, step = self, trainer.training_step
        self.model = trainer.model

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                _wait()
                self.start, self.cpu = time.perf_counter(), time.process_time()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                _wait()
                steps.seconds.append(time.perf_counter() - self.start)
                steps.cpu.append(time.process_time() - self.cpu)

        def counted(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            self.shapes.append(tuple(inputs["input_ids"].shape))
            return step(model, inputs, *rest)

        trainer.training_step = counted
        trainer.add_callback(Clock())


def lora(args: argparse.Namespace, *, ours: bool) -> dict[str, Any]:
    """LoRA steps on the same rows: by our worker and recipe, or by ms-swift with its defaults."""
    recipe = LoraParams(
        batch_size=args.train_batch,
        accumulate=args.accumulate,
        steps=1 + args.repeats,
        max_length=args.max_length,
    )
    rows = 16 * (1 + args.repeats)  # ms-swift's defaults see 16 rows a step
    with tempfile.TemporaryDirectory() as home:
        folder = internvl.write_folder(args.size, Path(home, "model"), 4 if args.tiles > 1 else 1)
        data = internvl.write_rows(
            Path(home), args.size, rows, args.frames, args.tiles, args.answer
        )
        model = ModelParams(
            model=str(folder), dtype=args.dtype, device=args.device, attention=args.attention
        )
        os.environ.update(build_environment(model, Path(home)))
        import_swift()
        found = find_model(model)
        if ours:
            command = build_command(
                model, recipe, found, rows, data, None, Path(home, "ours"), None
            )
            options = command[command.index("--rows") + 2 :]
        else:
            # use_hf and check_model only keep it off the network
            options = ["--model", str(folder), "--model_type", found.model_type, "--dataset"]
            options += [str(data), "--output_dir", str(Path(home, "swift")), "--torch_dtype"]
            options += [args.dtype, "--max_steps", str(recipe.steps), "--tuner_type", "lora"]
            options += ["--use_hf", "true", "--check_model", "false"]
        return _train(args, options, rows, ours)


def _train(args: argparse.Namespace, options: list[str], rows: int, ours: bool) -> dict[str, Any]:
    from swift.pipelines import SwiftSft

    from emolib.training import worker

    steps, train, before = Steps(), SwiftSft.train, peak_memory()

    def watched(self: Any, trainer: Any) -> Any:
        steps.watch(trainer)
        return train(self, trainer)

    start = time.perf_counter()
    with mock.patch.object(SwiftSft, "train", watched), internvl.built_on_load(args.device):
        worker.train(options, rows, 0) if ours else SwiftSft(options).main()
    took, total = statistics.median(steps.seconds[1:]), time.perf_counter() - start
    a_step = sum(shape[0] for shape in steps.shapes) // len(steps.seconds)
    length = max(shape[1] for shape in steps.shapes)
    work = internvl.flops(steps.model, a_step, args.frames * args.tiles, length).lora_step
    peak = peak_speed()
    return {
        "rows_a_step": a_step,
        "tokens_of_a_row": length,
        "step_s": took,
        "row_s": took / a_step,
        "row_cpu_s": statistics.median(steps.cpu[1:]) / a_step,
        "tokens_per_s": a_step * length / took,
        "trained_parameters": sum(w.numel() for w in steps.model.parameters() if w.requires_grad),
        "step_flops": work,
        "mfu": work / took / peak if peak else None,
        "whole_process_s": total,
        "memory_before_bytes": before,
        "peak_memory_bytes": peak_memory(),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Take one measurement in this process."""
    cpu = time.process_time()
    if args.phase in ("one_by_one", "batched"):
        found = answers(args, 1 if args.phase == "one_by_one" else args.batch)
    else:
        found = lora(args, ours=args.phase == "lora")
    return {**found, "cpu_s": time.process_time() - cpu}


def in_a_process(phase: str) -> dict[str, Any]:
    """Take one measurement in a fresh process with this one's options."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phase.json"
        command = [sys.executable, __file__, *sys.argv[1:], "--phase", phase, "--out", str(file)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--size", choices=sorted(internvl.SIZES), default="tiny")
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
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--phase", choices=PHASES, help="take only this measurement")
    made.add_argument("--out", type=Path, help="also write the record to this file")
    return made


def main() -> None:
    """Measure and print one JSON record."""
    args = parser().parse_args()
    if args.phase:
        record = measure(args)
    else:
        cuda = torch.cuda.is_available() and args.device != "cpu"
        record = {
            "command": shlex.join(["python", "benchmarks/internvl.py", *sys.argv[1:]]),
            "note": "" if cuda else NO_GPU,
            "settings": {k: v for k, v in vars(args).items() if k not in ("out", "phase")},
            "device": torch.cuda.get_device_name() if cuda else platform.machine(),
            "threads": torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 2),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            **{phase: in_a_process(phase) for phase in PHASES},
        }
        one, many = record["one_by_one"], record["batched"]
        swift, ours = record["lora_swift"], record["lora"]
        # on a busy machine processor time tells more than the clock; on a GPU only the clock does
        record["ratios"] = {
            "batched_over_one_by_one": many["clips_per_s"] / one["clips_per_s"],
            "batched_over_one_by_one_cpu": many["clips_per_cpu_s"] / one["clips_per_cpu_s"],
            "ours_over_swift_defaults": swift["row_s"] / ours["row_s"],
            "ours_over_swift_defaults_cpu": swift["row_cpu_s"] / ours["row_cpu_s"],
            "memory_ours_by_swift_defaults": ours["peak_memory_bytes"] / swift["peak_memory_bytes"],
        }
    print(json.dumps(record, indent=2))
    if args.out:
        write_json(args.out, record)


if __name__ == "__main__":
    main()
