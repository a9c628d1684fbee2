"""LoRA fine-tuning by ms-swift in a process of its own: resumable, repeatable, strict."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib.engines.precision import weight_type
from emolib.engines.swift_setup import find_model, free_memory, load_model, one_line
from emolib.errors import EngineError
from emolib.files import read_json, read_jsonl
from emolib.params.schemas import ModelParams
from emolib.params.training import LoraParams
from emolib.training.process import Progress, build_arguments
from emolib.training.rows import check_budget, check_images, check_rows
from emolib.training.store import Launch, Training, made_of

_ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training left.

    Attributes:
        key: Name of the training's folder in its store.
        adapter: Folder with the LoRA, ready for ``open_engine(adapters=[...])``.
        history: One entry a step: ``step, loss, learning_rate, grad_norm, epoch``; with
            validation also entries with ``step, eval_loss``.
        rows: Rows trained on.
        steps: Optimiser steps done.
        seconds: Wall-clock time of the last run, start of the process included.
        resumed_from: Step of the checkpoint the last run began from; 0 = from the start.
        command: The last run's command line.
    """

    key: str
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
    store: Path,
    *,
    val: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a LoRA, or go on with one that was interrupted, or return a finished one.

    A fresh process costs some 15 s before the first step. The same call is safe at any time:
    a finished training of the store is found by what its weights depend on
    (:func:`emolib.training.store.made_of`), a killed one goes on from its last complete
    checkpoint with the losses it would have had.

    Args:
        model: What is trained; ``decoding`` and ``batch_size`` are not looked at.
        lora: How.
        dataset: JSON lines ``{"messages": [{"role", "content"}, ...], "images": [path, ...]}``,
            the last message the assistant's; one ``<image>`` in the text for each image, or
            none at all (they then stand first).
        store: Folder of trainings. Each has a folder of its own in it: ``training.json``,
            ``train.log``, checkpoints, ``adapter/``, ``result.json`` (written last).
        val: More rows, whose loss is computed at every checkpoint.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.
        progress: Called as ``progress(step, steps, entry)`` for every new history entry.

    Raises:
        DataError: a row of the data set is not as described, or longer than ``max_length``
            (known beforehand for InternVL's and Qwen's models; of others every row is encoded
            before the first step), or an image cannot be decoded; names file and line.
        TrainingError: training failed (with the end of its log).
        MissingModelError: the model is not on this machine.
        MissingDependencyError: DeepSpeed is asked for and not installed.
        ParamsError: there are fewer GPUs than processes.
    """
    begin = time.perf_counter()
    dataset = Path(dataset).resolve()
    rows = check_rows(dataset)
    if val is not None:
        val = Path(val).resolve()
        check_rows(val)
    found = find_model(model, cache)
    files = (dataset, val) if val else (dataset,)
    # Rows that nobody can count are encoded before the first step, all of them.
    counted = all([check_budget(found.path, file, lora.max_length, model) for file in files])
    total = lora.steps or _steps(rows, lora)
    learned, held = (list(read_jsonl(file)) if file else [] for file in (dataset, val))
    parts = made_of("lora", model, found, learned, held, lora, total)
    training = Training.of(store, parts)

    def train(launch: Launch) -> dict[str, Any]:
        out, resume = launch.folder, launch.resume
        if resume is None:  # else they were looked at before
            for file in files:
                check_images(file)
        arguments = build_arguments(
            model, lora, found, rows, dataset, val, out, resume, lazy=counted
        )
        last, how = launch.run("emolib.training.worker", arguments, total, progress)
        _keep_adapter(last, out)
        seconds = time.perf_counter() - begin
        return how | {"history": _history(last), "rows": rows, "steps": total, "seconds": seconds}

    left = training.once(lora, model, train)
    for checkpoint in training.folder.glob("checkpoint-*"):  # the adapter is all that is needed
        shutil.rmtree(checkpoint, ignore_errors=True)
    (training.folder / "last-checkpoint").unlink(missing_ok=True)  # ms-swift's link to one
    left["history"] = [
        {k: math.nan if v is None else v for k, v in entry.items()} for entry in left["history"]
    ]
    return TrainResult(key=training.key, adapter=training.folder / _ADAPTER, **left)


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


def _history(checkpoint: Path) -> list[dict[str, float | None]]:
    state = read_json(checkpoint / "trainer_state.json")
    wanted = ("step", "loss", "learning_rate", "grad_norm", "epoch", "eval_loss")
    entries = [{k: e[k] for k in wanted if k in e} for e in state["log_history"]]
    kept = [e for e in entries if "loss" in e or "eval_loss" in e]
    # a loss that is no number any more (a training that diverged) as None
    return [{k: v if math.isfinite(v) else None for k, v in e.items()} for e in kept]


def _keep_adapter(checkpoint: Path, out: Path) -> None:
    adapter, draft = out / _ADAPTER, out / f".{_ADAPTER}"
    for folder in (adapter, draft):
        shutil.rmtree(folder, ignore_errors=True)
    draft.mkdir()
    for file in checkpoint.glob("adapter_*"):
        shutil.copy2(file, draft / file.name)
    draft.rename(adapter)
