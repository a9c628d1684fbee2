"""LoRA fine-tuning by ms-swift in a process of its own: resumable, repeatable, strict."""

from __future__ import annotations

import fcntl
import hashlib
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib.engines.fingerprint import fingerprint
from emolib.engines.precision import weight_type
from emolib.engines.swift_setup import (
    ModelFolder,
    find_model,
    free_memory,
    load_model,
    one_line,
)
from emolib.errors import EngineError, TrainingError
from emolib.files import read_json, write_json
from emolib.params.schemas import ModelParams
from emolib.params.training import LoraParams
from emolib.training.folder import claim, last_checkpoint, step_of
from emolib.training.join import announced
from emolib.training.launch import LaunchPlan
from emolib.training.process import (
    Progress,
    build_arguments,
    build_environment,
    plan_here,
    run_worker,
)
from emolib.training.rows import check_budget, check_rows

_RESULT = "result.json"
_REQUEST = "request.json"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training left.

    Attributes:
        adapter: Folder with the LoRA, ready for ``open_engine(adapters=[...])``.
        history: One entry a step: ``step, loss, learning_rate, grad_norm, epoch``; with
            validation also entries with ``step, eval_loss``.
        rows: Rows trained on.
        steps: Optimiser steps done.
        seconds: Wall-clock time of the last run, start of the process included.
        resumed_from: Step of the checkpoint the last run began from; 0 = from the start.
        command: The last run's command line.
    """

    adapter: Path
    history: list[dict[str, float]]
    rows: int
    steps: int
    seconds: float
    resumed_from: int
    command: list[str]


def train_lora(
    model: ModelParams,
    lora: LoraParams,
    dataset: Path,
    out: Path,
    *,
    val: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a LoRA, or go on with one that was interrupted, or return a finished one.

    A fresh process costs some 15 s before the first step. The same call with the same
    ``out`` is safe at any time: a finished training is not repeated, a killed one goes on
    from its last complete checkpoint with the losses it would have had.

    Args:
        model: What is trained; ``decoding`` and ``batch_size`` are not looked at.
        lora: How.
        dataset: JSON lines ``{"messages": [{"role", "content"}, ...], "images": [path, ...]}``,
            the last message the assistant's; one ``<image>`` in the text for each image, or
            none at all (they then stand first).
        out: Folder of this training: ``train.log``, checkpoints, ``adapter/``,
            ``result.json`` (written last).
        val: More rows, whose loss is computed at every checkpoint.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.
        progress: Called as ``progress(step, steps, entry)`` for every new history entry.

    Raises:
        DataError: a row of the data set is not as described, or longer than ``max_length``
            (known beforehand for converted InternVL folders); names file and line.
        TrainingError: training failed (with the end of its log), or ``out`` holds a
            training with other settings.
        MissingModelError: the model is not on this machine.
        MissingDependencyError: DeepSpeed is asked for and not installed.
        ParamsError: there are fewer GPUs than processes.
    """
    begin = time.perf_counter()
    plan = plan_here(lora, model)
    dataset, out = Path(dataset).resolve(), Path(out).resolve()
    rows = check_rows(dataset)
    if val is not None:
        val = Path(val).resolve()
        check_rows(val)
    found = find_model(model, cache)
    for file in (dataset, val) if val else (dataset,):
        check_budget(found.path, file, lora.max_length, model)
    request = _request(model, lora, found, dataset, val)
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with this process
        except OSError:
            raise TrainingError(f"another process is training in {out}") from None
        claim(out / _REQUEST, request)
        if (out / _RESULT).is_file():
            return _read_result(out)
        return _train(model, lora, plan, found, rows, dataset, out, val, progress, begin)


def _train(
    model: ModelParams,
    lora: LoraParams,
    plan: LaunchPlan,
    found: ModelFolder,
    rows: int,
    dataset: Path,
    out: Path,
    val: Path | None,
    progress: Progress | None,
    begin: float,
) -> TrainResult:
    resume = last_checkpoint(out)
    total = lora.steps or _steps(rows, lora)
    arguments = build_arguments(model, lora, found, rows, dataset, val, out, resume)
    command = plan.command("emolib.training.worker", arguments)
    environ = plan.environment(build_environment(model, out))
    with announced(command, environ, plan, model.device, out):
        run_worker(command, environ, out, total, progress)
    last = last_checkpoint(out)
    if last is None or step_of(last) != total:
        at = 0 if last is None else step_of(last)
        raise TrainingError(f"training ended at step {at} of {total}; see {out / 'train.log'}")
    adapter = _keep_adapter(last, out)
    result = TrainResult(
        adapter=adapter,
        history=_history(last),
        rows=rows,
        steps=total,
        seconds=time.perf_counter() - begin,
        resumed_from=step_of(resume) if resume else 0,
        command=command,
    )
    shutil.rmtree(out / "cache", ignore_errors=True)
    write_json(out / _RESULT, {name: _plain(getattr(result, name)) for name in result.__slots__})
    return result


def merge_lora(model: ModelParams, adapter: Path, out: Path, *, cache: Path | None = None) -> Path:
    """Add a LoRA to its base weights and write a plain checkpoint.

    Everything but the weights (config, tokenizer, processor, chat template) is the base's,
    file by file. Needs memory for the whole model.

    Args:
        model: The base model.
        adapter: LoRA folder.
        out: New folder; appears complete or not at all.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.

    Returns:
        ``out``.

    Raises:
        FileExistsError: ``out`` exists.
        EngineError: model or adapter cannot be loaded.
    """
    adapter, out = Path(adapter), Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists; a checkpoint is never overwritten")
    if not (adapter / "adapter_config.json").is_file():
        raise EngineError(f"{adapter} has no adapter_config.json: not a LoRA folder")
    found = find_model(model, cache)
    dtype = weight_type(model, found.dtype)
    base, _ = load_model(model, found, dtype)
    from swift.tuners import Swift

    try:
        merged = Swift.from_pretrained(base, str(adapter)).merge_and_unload()
    except Exception as error:
        raise EngineError(f"{adapter} does not fit {model.model}: {one_line(error)}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        merged.save_pretrained(draft)
        for file in found.path.iterdir():
            # the weights' index is written with the weights
            if file.is_file() and ".safetensors" not in file.name and file.suffix != ".bin":
                shutil.copy2(file, draft / file.name)
        draft.chmod(0o755)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        del base, merged
        free_memory()  # the next to be opened may need the whole device
    return out


def _steps(rows: int, lora: LoraParams) -> int:
    """Optimiser steps of ``epochs``, counted as the Trainer does."""
    batches = math.ceil(math.ceil(rows / (lora.processes * lora.nodes)) / lora.batch_size)
    an_epoch = max(math.ceil(batches / lora.accumulate), 1)
    return max(math.ceil(lora.epochs * an_epoch), 1)


def _request(
    model: ModelParams, lora: LoraParams, found: ModelFolder, dataset: Path, val: Path | None
) -> dict[str, Any]:
    """Everything the trained weights depend on."""
    used = ("model_type", "template", "dtype", "attention", "max_tiles")
    return {
        "weights": fingerprint(found.path),
        "model": {name: getattr(model, name) for name in used},
        "lora": lora.model_dump(mode="json", exclude={"master_addr", "master_port", "workers"}),
        "dataset": hashlib.sha256(dataset.read_bytes()).hexdigest()[:16],
        "val": hashlib.sha256(val.read_bytes()).hexdigest()[:16] if val else "",
    }


def _history(checkpoint: Path) -> list[dict[str, float]]:
    state = read_json(checkpoint / "trainer_state.json")
    wanted = ("step", "loss", "learning_rate", "grad_norm", "epoch", "eval_loss")
    entries = [{k: e[k] for k in wanted if k in e} for e in state["log_history"]]
    return [e for e in entries if "loss" in e or "eval_loss" in e]


def _keep_adapter(checkpoint: Path, out: Path) -> Path:
    adapter, draft = out / "adapter", out / ".adapter"
    for folder in (adapter, draft):
        shutil.rmtree(folder, ignore_errors=True)
    draft.mkdir()
    for file in checkpoint.glob("adapter_*"):
        shutil.copy2(file, draft / file.name)
    draft.rename(adapter)
    return adapter


def _plain(value: Any) -> Any:
    """Plain values; a loss that is no number any more (a training that went astray) as null."""
    if isinstance(value, list):
        return [
            {k: v if math.isfinite(v) else None for k, v in entry.items()}
            if isinstance(entry, dict)
            else entry
            for entry in value
        ]
    return value.name if isinstance(value, Path) else value


def _read_result(out: Path) -> TrainResult:
    stored = read_json(out / _RESULT)
    history = [{k: math.nan if v is None else v for k, v in e.items()} for e in stored["history"]]
    return TrainResult(**stored | {"adapter": out / stored["adapter"], "history": history})
