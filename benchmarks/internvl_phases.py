"""The measurements of the InternVL benchmark; each is taken in a process of its own.

Answers call the model directly, training goes through ms-swift's own entry point. On a GPU a clock
stops after the device has finished; first runs and first steps are left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import internvl_model as internvl
import torch
from measuring import Steps, peak_memory, peak_speed, wait

from emolib.engines.swift_setup import find_model, import_swift
from emolib.params import ModelParams
from emolib.params.training import LoraParams
from emolib.training.process import build_arguments, build_environment, plan_here

PHASES = ("one_by_one", "batched", "lora", "lora_swift")


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
        wait()
        start, used = time.perf_counter(), time.process_time()
        work()
        wait()
        times.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return statistics.median(times[1:]), statistics.median(cpu[1:])


def answers(args: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Greedy answers of fixed length to ``batch`` clips at once."""
    before, start = peak_memory(), time.perf_counter()
    dtype = getattr(torch, args.dtype)
    model = internvl.build(
        internvl.config_of(args.size, args.layers), args.device, dtype, args.attention
    )
    wait()
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
        "peak_flops": peak,
        "prompt_mfu": work / read / peak if peak else None,
        "memory_before_bytes": before,
        "peak_memory_bytes": peak_memory(),
    }


def lora(args: argparse.Namespace, *, ours: bool) -> dict[str, Any]:
    """LoRA steps on the same rows: by our worker and recipe, or by ms-swift with its defaults."""
    recipe = LoraParams(
        batch_size=args.train_batch,
        accumulate=args.accumulate,
        steps=1 + args.repeats,
        max_length=args.max_length,
        workers=args.workers,
    )
    rows = max(16, args.train_batch * args.accumulate) * (1 + args.repeats)  # 16: ms-swift's step
    with tempfile.TemporaryDirectory() as home:
        folder = internvl.write_folder(
            args.size, Path(home, "model"), 4 if args.tiles > 1 else 1, args.layers
        )
        data = internvl.write_rows(
            Path(home), args.size, rows, args.frames, args.tiles, args.answer
        )
        model = ModelParams(
            model=str(folder), dtype=args.dtype, device=args.device, attention=args.attention
        )
        os.environ.update(
            plan_here(recipe, model).environment(build_environment(model, Path(home)))
        )
        import_swift()
        found = find_model(model)
        if ours:
            arguments = build_arguments(
                model, recipe, found, rows, data, None, Path(home, "ours"), None
            )
            options = arguments[arguments.index("--rows") + 2 :]
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
    computing = statistics.median(steps.computing[1:])
    a_step = sum(shape[0] for shape in steps.shapes) // len(steps.seconds)
    length = max(shape[1] for shape in steps.shapes)
    work = internvl.flops(steps.model, a_step, args.frames * args.tiles, length).lora_step
    peak = peak_speed()
    return {
        "rows_a_step": a_step,
        "tokens_of_a_row": length,
        "step_s": took,
        "computing_s": computing,
        "row_s": took / a_step,
        "row_cpu_s": statistics.median(steps.cpu[1:]) / a_step,
        "tokens_per_s": a_step * length / took,
        "trained_parameters": sum(w.numel() for w in steps.model.parameters() if w.requires_grad),
        "step_flops": work,
        "peak_flops": peak,
        "mfu": work / took / peak if peak else None,
        "mfu_computing": work / computing / peak if peak else None,
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
