"""LoRA fine-tuning by ms-swift in a process of its own: resumable, repeatable, strict."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib.engines.fingerprint import fingerprint
from emolib.engines.swift_setup import ModelFolder, environment, find_model, import_swift
from emolib.errors import DataError, EngineError, TrainingError
from emolib.params.schemas import ModelParams
from emolib.params.training import LoraParams
from emolib.training_worker import COMPLETE

_RESULT = "result.json"
_REQUEST = "request.json"
_POLL = 0.2  # seconds between looks at the log
_TAIL = 30  # lines of the log in an error


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
    progress: Callable[[int, int, dict[str, float]], object] | None = None,
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
        DataError: a row of the data set is not as described; names file and line.
        TrainingError: training failed (with the end of its log), or ``out`` holds a
            training with other settings.
        MissingModelError: the model is not on this machine.
    """
    begin = time.perf_counter()
    dataset, out = Path(dataset).resolve(), Path(out).resolve()
    rows = check_rows(dataset)
    if val is not None:
        val = Path(val).resolve()
        check_rows(val)
    found = find_model(model, cache)
    request = _request(model, lora, found, dataset, val)
    _claim(out, request)
    if (out / _RESULT).is_file():
        return _read_result(out)

    resume = _last_checkpoint(out)
    total = lora.steps or _steps(rows, lora)
    command = _command(model, lora, found, rows, dataset, val, out, resume)
    _run(command, _child_environment(model, out), out, total, progress)
    last = _last_checkpoint(out)
    if last is None or _step_of(last) != total:
        at = 0 if last is None else _step_of(last)
        raise TrainingError(f"training ended at step {at} of {total}; see {out / 'train.log'}")
    adapter = _keep_adapter(last, out)
    result = TrainResult(
        adapter=adapter,
        history=_history(last),
        rows=rows,
        steps=total,
        seconds=time.perf_counter() - begin,
        resumed_from=_step_of(resume) if resume else 0,
        command=command,
    )
    shutil.rmtree(out / "cache", ignore_errors=True)
    _write_json(out / _RESULT, {name: _plain(getattr(result, name)) for name in result.__slots__})
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
    import_swift(allow_download=model.allow_download)
    import torch
    from swift.model import get_model_processor
    from swift.tuners import Swift

    dtype = found.dtype if model.dtype == "auto" else model.dtype
    base, _ = get_model_processor(
        str(found.path),
        torch_dtype=getattr(torch, dtype),
        model_type=found.model_type or None,
        device_map=None if model.device == "auto" else model.device,
        use_hf=True,
    )
    merged = Swift.from_pretrained(base, str(adapter)).merge_and_unload()
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
    return out


def check_rows(dataset: Path) -> int:
    """Check that every line is a trainable row and count them.

    Raises:
        DataError: names file, line and fault.
    """
    count = 0
    try:
        with Path(dataset).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    if fault := _row_fault(line):
                        raise DataError(f"{dataset}, line {number}: {fault}")
                    count += 1
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dataset}: not readable: {error}") from None
    if not count:
        raise DataError(f"{dataset}: no rows")
    return count


def _row_fault(line: str) -> str:
    try:
        row = json.loads(line)
        messages, images = row["messages"], row.get("images") or []
        texts = [(m["role"], m["content"]) for m in messages]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"not a row of messages and images ({type(error).__name__}: {error})"
    if not texts or texts[-1][0] != "assistant":
        return "the last message is not the assistant's"
    for role, text in texts:
        if role not in ("system", "user", "assistant") or not isinstance(text, str):
            return f"a message of role {role!r}; expected system, user, assistant with text"
    if not texts[-1][1].strip():
        return "the answer to learn is empty"
    marks = sum(text.count("<image>") for _, text in texts)
    if marks not in (0, len(images)):
        return f"{marks} <image> marks for {len(images)} images"
    missing = [i for i in images if not (isinstance(i, str) and Path(i).is_file())]
    return f"no such image: {missing[0]}" if missing else ""


def _steps(rows: int, lora: LoraParams) -> int:
    """Optimiser steps of ``epochs``, counted as the Trainer does."""
    batches = math.ceil(math.ceil(rows / lora.processes) / lora.batch_size)
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
        "lora": lora.model_dump(mode="json"),
        "dataset": hashlib.sha256(dataset.read_bytes()).hexdigest()[:16],
        "val": hashlib.sha256(val.read_bytes()).hexdigest()[:16] if val else "",
    }


def _claim(out: Path, request: dict[str, Any]) -> None:
    """Note in ``out`` what is trained there; refuse a folder that holds something else."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / _REQUEST
    if not file.is_file():
        _write_json(file, request)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    if before != request:
        parts = [k for k in request if before.get(k) != request[k]]
        raise TrainingError(
            f"{out} holds a training with other settings ({', '.join(parts)} differ): "
            "use another folder or remove this one"
        )


def _command(
    model: ModelParams,
    lora: LoraParams,
    found: ModelFolder,
    rows: int,
    dataset: Path,
    val: Path | None,
    out: Path,
    resume: Path | None,
) -> list[str]:
    dtype = found.dtype if model.dtype == "auto" else model.dtype
    options: dict[str, object] = {
        "model": found.path.resolve(),
        "use_hf": True,
        "model_type": model.model_type or found.model_type or None,
        "template": model.template or None,
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
        "split_dataset_ratio": 0,
        "load_from_cache_file": False,
        "dataset_num_proc": 1,
        "dataloader_num_workers": 0,
        "strict": True,
        # with "delete" the template refuses a row that is too long; the worker checks that no
        # row was left out
        "truncation_strategy": "delete",
        "max_length": lora.max_length,
        "lazy_tokenize": not lora.encode_first,
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
        "logging_steps": 1,
        "report_to": "none",
        "push_to_hub": False,
        "output_dir": out,
        "add_version": False,
        "deepspeed": lora.deepspeed or None,
        "resume_from_checkpoint": resume,
    }
    command = [sys.executable, "-m", "emolib.training_worker", "--parent", str(os.getpid())]
    command += ["--processes", str(lora.processes), "--max_tiles", str(model.max_tiles)]
    command += ["--rows", str(rows)]
    for name, value in options.items():
        if value is None:
            continue
        command.append(f"--{name}")
        command += [str(v) for v in value] if isinstance(value, tuple) else [_text(value)]
    return command


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _child_environment(model: ModelParams, out: Path) -> dict[str, str]:
    ours = environment(allow_download=model.allow_download)
    ours |= {"LOG_LEVEL": "INFO", "HF_DATASETS_CACHE": str(out / "cache"), "PYTHONUNBUFFERED": "1"}
    if model.device == "cpu":
        ours["CUDA_VISIBLE_DEVICES"] = ""
    elif ":" in model.device:
        ours["CUDA_VISIBLE_DEVICES"] = model.device.split(":", 1)[1]
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH", "")) if p)
    return os.environ | ours | {"PYTHONPATH": path}


def _run(
    command: list[str],
    environ: dict[str, str],
    out: Path,
    total: int,
    progress: Callable[[int, int, dict[str, float]], object] | None,
) -> None:
    """Run the worker to its end, passing on what it logs."""
    log = out / "logging.jsonl"
    seen = log.stat().st_size if log.is_file() else 0
    with (out / "train.log").open("ab") as output:
        worker = subprocess.Popen(
            command,
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
            _end(worker)
    if code != 0:
        lines = (out / "train.log").read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(lines[-_TAIL:])
        raise TrainingError(
            f"training failed (exit code {code}); {out / 'train.log'} ends:\n{tail}"
        )


def _report(
    log: Path,
    seen: int,
    total: int,
    progress: Callable[[int, int, dict[str, float]], object] | None,
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


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End the worker's whole process group if it still runs."""
    if worker.poll() is not None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(worker.pid, sign)
            worker.wait(10)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def _last_checkpoint(out: Path) -> Path | None:
    """Return the newest complete checkpoint, removing what a kill left half written."""
    complete = []
    for folder in out.glob("checkpoint-*"):
        if (folder / COMPLETE).is_file():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return max(complete, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def _history(checkpoint: Path) -> list[dict[str, float]]:
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
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
    return value.name if isinstance(value, Path) else value


def _read_result(out: Path) -> TrainResult:
    stored = json.loads((out / _RESULT).read_text(encoding="utf-8"))
    return TrainResult(**stored | {"adapter": out / stored["adapter"]})


def _write_json(file: Path, content: object) -> None:
    draft = file.with_name(f".{file.name}")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(file)
