"""AffectGPT's training stage itself, timed: profile h200's recipe, our worker, ``swift sft``."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import affectgpt_model as affectgpt
import numpy as np
import torch
from measuring import Record, Steps, peak_memory, peak_speed

from emolib.files import write_jsonl
from emolib.params import ModelParams
from emolib.params.profiles import resolve

ROOT = Path(__file__).parents[1]


def shipped(args: argparse.Namespace, checkpointing: bool = True) -> Record:
    """Steps of the training stage itself: profile h200's recipe, our worker, ``swift sft``.

    One process, cached towers. Weights are made on loading, in the worker's own process: this one.

    Args:
        args: Of the benchmark.
        checkpointing: As the profile says; False: activations are kept whatever it says.
    """
    from swift.pipelines import SwiftSft

    from emolib.engines.swift_setup import find_model, import_swift
    from emolib.sft import worker
    from emolib.sft.command import build_arguments, feature_environment
    from emolib.training.process import build_environment, plan_here

    device = "cuda" if torch.cuda.is_available() else "cpu"
    stage = resolve(ROOT, "h200", "04_affectgpt_sft")
    recipe = stage.recipe.model_copy(update={"epochs": 1, "steps_per_epoch": args.swift_steps})
    if not checkpointing:
        recipe = recipe.model_copy(update={"gradient_checkpointing": False})
    if device == "cpu":
        recipe = recipe.model_copy(update={"workers": 0})
    before, start = peak_memory(), time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        out = Path(home, "out")
        out.mkdir()
        config, processor = affectgpt.design(args.work, args.narrow, args.layers)
        folder = affectgpt.write_folder(config, processor, Path(home, "model"))
        rows, clips = affectgpt.written(args, processor)
        plan = affectgpt.planned(rows, clips, args.pictures, recipe)
        write_jsonl(out / "rows.jsonl", rows)
        np.save(out / "order.npy", plan.order, allow_pickle=False)
        dtype = "bfloat16" if device == "cuda" else "float32"
        model = ModelParams(model=str(folder), dtype=dtype, device=device)
        environ = plan_here(recipe, model).environment(build_environment(model, out))
        os.environ.update(environ | feature_environment(model, recipe, args.features))
        import_swift()
        found = find_model(model)
        arguments = build_arguments(model, recipe, found, len(rows), plan, False, out, 0, None)
        options = arguments[arguments.index("--order") + 2 :]
        steps, train = Steps(), SwiftSft.train

        def watched(self: Any, trainer: Any) -> Any:
            steps.watch(trainer)
            return train(self, trainer)

        with mock.patch.object(SwiftSft, "train", watched), affectgpt.built_on_load(device):
            worker.train(options, len(rows), out / "order.npy", "", None)
        lengths = [len(processor.encode([_turn(rows[n])])[0]) for n in plan.order]
    took, computing = (statistics.median(s[1:]) for s in (steps.seconds, steps.computing))
    flops = affectgpt.step_flops(steps.model.language_model, lengths)[1] / len(steps.seconds)
    peak = peak_speed()
    return {
        "batch": recipe.batch_size,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "workers": recipe.workers,
        "steps": len(steps.seconds),
        "step_s": took,
        "computing_s": computing,
        "samples_per_second": recipe.batch_size / took,
        "tokens_per_sample": sum(lengths) / len(lengths),
        "llm_mfu": flops / took / peak if peak else None,
        "llm_mfu_computing": flops / computing / peak if peak else None,
        "memory_before_bytes": before,
        "peak_memory_bytes": peak_memory(),
        "whole_process_s": time.perf_counter() - start,
    }


def _turn(row: dict[str, Any]) -> tuple[str, str]:
    prompt, answer = (message["content"] for message in row["messages"])
    return prompt, answer
