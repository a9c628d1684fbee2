"""The arguments and environment of the process that trains AffectGPT."""

from __future__ import annotations

import json
from pathlib import Path

from emolib.engines.precision import weight_type
from emolib.engines.swift_setup import ModelFolder
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import ModelParams
from emolib.sft.data import Plan
from emolib.training.process import swift_arguments

LORA = r"\.lora_"  # in the names of the language model's adapters


def build_arguments(
    model: ModelParams,
    sft: SftParams,
    found: ModelFolder,
    rows: int,
    plan: Plan,
    val: bool,
    out: Path,
    seed: int,
    resume: Path | None,
) -> list[str]:
    """Write the worker's arguments: our options, then ``swift sft``'s."""
    every = sft.save_epochs * plan.steps_per_epoch
    dtype = weight_type(model, found.dtype)
    options: dict[str, object] = {
        "model": found.path.resolve(),
        "model_type": "affectgpt",
        "template": "affectgpt",
        "torch_dtype": dtype,
        "attn_impl": model.attention or None,
        # all of what ms-swift calls the aligner, and a LoRA that the worker has put into the
        # language model before: the worker checks that it is the design's set
        "tuner_type": "full",
        "freeze_llm": True,
        "freeze_vit": True,
        "freeze_aligner": False,
        "trainable_parameters_regex": f".*{LORA}" if sft.lora else None,
        "dataset": out / "rows.jsonl",
        "val_dataset": out / "val.jsonl" if val else None,
        # the order is the plan's
        "dataset_shuffle": False,
        "train_dataloader_shuffle": False,
        "dataloader_num_workers": sft.workers,
        "max_length": sft.max_length,
        "lazy_tokenize": True,
        "learning_rate": sft.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": json.dumps({"min_lr": sft.min_learning_rate}),
        "warmup_steps": sft.warmup_steps,
        "weight_decay": sft.weight_decay,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "max_grad_norm": sft.max_grad_norm,
        "max_steps": plan.steps,
        "per_device_train_batch_size": sft.batch_size,
        "per_device_eval_batch_size": sft.batch_size,
        "gradient_accumulation_steps": sft.accumulate,
        "gradient_checkpointing": sft.gradient_checkpointing,
        "ddp_find_unused_parameters": False,  # the model gives absent branches zero gradients
        "deepspeed": sft.deepspeed or None,
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "steps",
        "save_steps": every,
        "eval_strategy": "steps" if val else "no",
        "eval_steps": every,
        "output_dir": out,
    }
    ours = ["--rows", str(rows), "--order", str(out / "order.npy")]
    if sft.lora is not None:
        ours += ["--lora", sft.lora.model_dump_json()]
    if resume is not None:
        ours += ["--resume", str(resume)]
    return ours + swift_arguments(options)


def feature_environment(model: ModelParams, sft: SftParams, features: Path) -> dict[str, str]:
    """How the plugin finds media; on a CPU only tiny models train, which one thread does best."""
    threads = {"OMP_NUM_THREADS": "1"} if model.device == "cpu" else {}
    return threads | {
        "AFFECTGPT_CACHE": str(features) if sft.cache else "",
        "AFFECTGPT_CROP": "1" if sft.crop else "",
    }
