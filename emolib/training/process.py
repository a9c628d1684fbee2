"""Start the training process, follow its log, and make sure it ends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from emolib import processes
from emolib.engines.gpus import VARIABLE, gpu_count
from emolib.engines.precision import weight_type
from emolib.engines.swift_setup import ModelFolder, child_environment
from emolib.errors import MissingDependencyError, TrainingError
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import ModelParams
from emolib.params.training import LoraParams
from emolib.training.launch import LaunchPlan, launch_plan

COMPLETE = "complete"  # file in a checkpoint folder, written after everything else in it
_POLL = 0.2  # seconds between looks at the log
_TAIL = 30  # lines of the log in an error

# Options of ``swift sft`` that are the same whatever is trained.
COMMON: dict[str, object] = {
    "use_hf": True,
    "split_dataset_ratio": 0,
    "load_from_cache_file": False,
    "dataset_num_proc": 1,
    # with "delete" the template refuses a row that is too long, which is an error under strict;
    # the worker checks that no row was left out
    "strict": True,
    "truncation_strategy": "delete",
    "logging_steps": 1,
    "report_to": "none",
    "push_to_hub": False,
    "check_model": False,  # would ask a hub whether the weights are the newest
    "add_version": False,
}

Progress = Callable[[int, int, dict[str, float]], object]


def build_arguments(
    model: ModelParams,
    lora: LoraParams,
    found: ModelFolder,
    rows: int,
    dataset: Path,
    val: Path | None,
    out: Path,
    resume: Path | None,
    *,
    lazy: bool = True,
) -> list[str]:
    """Write the worker's arguments: our options, then ``swift sft``'s.

    With ``lazy`` a row is encoded when its turn comes, by the loader's processes; else every row
    is encoded once before the first step, to find those that are too long.
    """
    dtype = weight_type(model, found.dtype)
    options: dict[str, object] = {
        "model": found.path.resolve(),
        "model_type": found.model_type or None,
        "template": found.template or None,
        "torch_dtype": dtype,
        "attn_impl": model.attention or None,
        "tuner_type": "lora",
        "lora_rank": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": lora.target_modules,
        "freeze_vit": lora.freeze_vit,
        "freeze_aligner": lora.freeze_aligner,
        "dataset": dataset,
        "val_dataset": val,
        "dataloader_num_workers": lora.workers,
        "max_length": lora.max_length,
        "lazy_tokenize": lazy,
        "learning_rate": lora.learning_rate,
        "num_train_epochs": lora.epochs,
        "max_steps": lora.steps or -1,
        "per_device_train_batch_size": lora.batch_size,
        "per_device_eval_batch_size": lora.batch_size,
        "gradient_accumulation_steps": lora.accumulate,
        "warmup_ratio": lora.warmup,
        "weight_decay": lora.weight_decay,
        "lr_scheduler_type": lora.scheduler,
        "max_grad_norm": lora.max_grad_norm,
        "gradient_checkpointing": lora.gradient_checkpointing,
        "seed": lora.seed,
        "data_seed": lora.seed,
        "save_steps": lora.save_steps,
        "save_total_limit": 2,  # the older one is complete while the newer is written
        "eval_strategy": "steps" if val else "no",
        "output_dir": out,
        "deepspeed": lora.deepspeed or None,
        "resume_from_checkpoint": resume,
    }
    ours = ["--max_tiles", str(model.max_tiles), "--max_pixels", str(model.max_pixels)]
    ours += ["--rows", str(rows)]
    return ours + swift_arguments(options)


def swift_arguments(options: Mapping[str, object]) -> list[str]:
    """Write ``swift sft``'s options and those of :data:`COMMON`; None is left to its default."""
    options = COMMON | dict(options)
    if options.get("torch_dtype") == "float32":
        # ms-swift would compute in fp16, and have DeepSpeed turn the weights into it
        options["fp16"] = False
    written = []
    for name, value in options.items():
        if value is None:
            continue
        written.append(f"--{name}")
        written += [str(v) for v in value] if isinstance(value, tuple) else [_text(value)]
    return written


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def build_environment(model: ModelParams, out: Path) -> dict[str, str]:
    """Give the worker this process's environment, offline and able to import emolib."""
    own = {"LOG_LEVEL": "INFO", "HF_DATASETS_CACHE": str(out / "cache")}
    return child_environment(allow_download=model.allow_download) | own


def plan_here(recipe: LoraParams | SftParams, model: ModelParams) -> LaunchPlan:
    """Plan a training for the GPUs that this process sees.

    Raises:
        ParamsError: there are fewer than it needs.
        MissingDependencyError: DeepSpeed is asked for and not installed.
    """
    if recipe.deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError(
            f"deepspeed = {recipe.deepspeed!r} needs DeepSpeed: pip install deepspeed"
        )
    gpus = 0 if model.device == "cpu" else gpu_count()
    given = os.environ.get(VARIABLE)
    return launch_plan(recipe, gpus, model, given=given, run_id=uuid.uuid4().hex)


def run_worker(
    command: list[str],
    environ: dict[str, str],
    out: Path,
    total: int,
    progress: Progress | None,
) -> None:
    """Run the worker to its end, passing on what it logs; it dies with this process."""
    log = out / "logging.jsonl"
    seen = log.stat().st_size if log.is_file() else 0
    with (out / "train.log").open("ab") as output:
        worker = subprocess.Popen(
            processes.tied(command),
            env=environ,
            cwd=out,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches us, and we end it
        )
        try:
            while True:
                try:
                    code: int | None = worker.wait(_POLL)
                except subprocess.TimeoutExpired:
                    code = None
                seen = _report(log, seen, total, progress)
                if code is not None:
                    break
        finally:
            processes.end(worker)
    if code != 0:
        lines = (out / "train.log").read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join([f"{out / 'train.log'} ends:", *lines[-_TAIL:]])
        raise TrainingError(f"training failed (exit code {code}); {tail}")


def _report(
    log: Path,
    seen: int,
    total: int,
    progress: Progress | None,
) -> int:
    """Pass on the complete lines after byte ``seen``; return the new position."""
    if progress is None or not log.is_file():
        return seen
    with log.open("rb") as stream:
        stream.seek(seen)
        text = stream.read()
    text = text[: text.rfind(b"\n") + 1]
    for line in text.splitlines():
        entry = json.loads(line)
        if "loss" in entry or "eval_loss" in entry:
            step = int(str(entry["global_step/max_steps"]).split("/")[0])
            progress(step, total, {k: v for k, v in entry.items() if isinstance(v, int | float)})
    return seen + len(text)
