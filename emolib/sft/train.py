"""Train AffectGPT's branches in a process of its own: resumable, repeatable, strict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emolib.engines.swift_setup import ModelFolder, find_model
from emolib.errors import DataError, ParamsError
from emolib.files import read_json, write_jsonl
from emolib.hashing import key_of
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import ModelParams
from emolib.sft.command import build_arguments, feature_environment
from emolib.sft.data import Plan, check_lengths
from emolib.training.process import Progress
from emolib.training.store import Launch, Training, made_of, step_of

BRANCHES = "branches.safetensors"
TRAINABLE = "trainable.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One kept state of the branches.

    Attributes:
        step: Optimiser steps done.
        epoch: Epochs done.
        file: The branches, for :class:`emolib.models.affectgpt.engine.AffectGPTEngine`.
        eval_loss: Loss on the validation rows; None without any.
    """

    step: int
    epoch: int
    file: Path
    eval_loss: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left.

    Attributes:
        key: Name of the training's folder in its store.
        checkpoints: In time order.
        history: One entry a step: ``step, epoch, loss, learning_rate, grad_norm``; at
            checkpoints, with validation rows, also ``step, epoch, eval_loss``.
        rows: Different rows trained on.
        seen: Rows seen by source, over all epochs.
        longest: Tokens of the longest row.
        tensors: Trained tensors.
        parameters: Numbers in them.
        steps: Optimiser steps done.
        seconds: Wall-clock time of the last run, start of the process included.
        resumed_from: Step of the checkpoint the last run began from; 0 = from the start.
        command: The last run's command line.
    """

    key: str
    checkpoints: list[Checkpoint]
    history: list[dict[str, float]]
    rows: int
    seen: dict[str, int]
    longest: int
    tensors: int
    parameters: int
    steps: int
    seconds: float
    resumed_from: int
    command: list[str]

    def choose(self, policy: str) -> list[Checkpoint]:
        """Pick checkpoints without a look at test clips.

        Args:
            policy: "best" (lowest validation loss, the earlier of equals), "last", or epochs
                "30-60": every checkpoint in that range, each to be tested by itself.

        Raises:
            ParamsError: another policy, "best" without validation, or no checkpoint in range.
        """
        if policy == "last":
            return [self.checkpoints[-1]]
        if policy == "best":
            if any(c.eval_loss is None for c in self.checkpoints):
                raise ParamsError("checkpoint: 'best' needs validation clips; there are none")
            return [min(self.checkpoints, key=lambda c: (c.eval_loss, c.step))]
        first, dash, last = policy.partition("-")
        if not (dash and first.isdigit() and last.isdigit()):
            raise ParamsError(f"checkpoint: {policy!r}: choose best, last or epochs like 30-60")
        chosen = [c for c in self.checkpoints if int(first) <= c.epoch <= int(last)]
        if not chosen:
            have = [c.epoch for c in self.checkpoints]
            raise ParamsError(f"checkpoint: no epoch in {policy}; there are checkpoints of {have}")
        return chosen

    def to_json(self) -> dict[str, Any]:
        """Plain values without times and the machine's paths."""
        kept = ("rows", "seen", "longest", "tensors", "parameters", "steps")
        checkpoints = [
            {"step": c.step, "epoch": c.epoch, "eval_loss": c.eval_loss} for c in self.checkpoints
        ]
        losses = [entry["loss"] for entry in self.history if "loss" in entry]
        part = max(1, len(losses) // len(self.checkpoints))
        return {name: getattr(self, name) for name in kept} | {
            "checkpoints": checkpoints,
            "loss_at_first": round(sum(losses[:part]) / part, 6),
            "loss_at_last": round(sum(losses[-part:]) / part, 6),
        }


def train_branches(
    model: ModelParams,
    sft: SftParams,
    rows: Sequence[dict[str, Any]],
    plan: Plan,
    store: Path,
    *,
    val: Sequence[dict[str, Any]] = (),
    features: Path | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train exactly the design's trainable set, or go on with it, or return a finished one.

    ``swift sft`` runs in a subprocess (torchrun for several GPUs) that dies with this one. The
    same call is safe at any time: a finished training of the store is found by what its weights
    depend on (:func:`emolib.training.store.made_of`), a killed one goes on from its last complete
    checkpoint with the losses it would have had.

    With ``sft.cache`` the frozen towers run once over every picture, video and sound that is
    not in ``features`` yet, on all GPUs, before the first step.

    Args:
        model: The converted AffectGPT (or Video-LLaMA) folder, or "tiny:affectgpt".
        sft: How.
        rows: From :func:`emolib.sft.data.clip_rows` and :func:`picture_rows`, clips first.
        plan: Which row when, from :func:`emolib.sft.data.plan`.
        store: Folder of trainings. Each has a folder of its own in it: ``training.json``,
            ``train.log``, checkpoints, ``result.json`` (written last).
        val: Rows whose loss is computed at every checkpoint.
        features: Folder of cached features, shared by all trainings; None: beside the
            checkpoints. Other towers or preprocessing get another folder in it.
        seed: Seed of dropout and crops; the order is the plan's.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.
        progress: Called as ``progress(step, steps, entry)`` for every new history entry.

    Raises:
        DataError: rows longer than ``sft.max_length``, or a medium is unusable.
        TrainingError: training failed (with the end of its log).
        MissingModelError: the model is not on this machine.
        MissingDependencyError: DeepSpeed is asked for and not installed.
        ParamsError: there are fewer GPUs than processes.
    """
    begin = time.perf_counter()
    found = find_model(model, cache)
    longest = _check_rows(rows, val, plan, found, sft.max_length)
    order = key_of(order=plan.order.tolist())[:16]
    parts = made_of("affectgpt", model, found, rows, val, sft, plan.steps, order=order, seed=seed)
    training = Training.of(store, parts)

    def train(launch: Launch) -> dict[str, Any]:
        out = launch.folder
        write_jsonl(out / "rows.jsonl", rows)
        write_jsonl(out / "val.jsonl", val)
        np.save(out / "order.npy", plan.order, allow_pickle=False)
        arguments = build_arguments(
            model, sft, found, len(rows), plan, bool(val), out, seed, launch.resume
        )
        environ = feature_environment(model, sft, (features or out / "features").resolve())
        last, how = launch.run("emolib.sft.worker", arguments, plan.steps, progress, **environ)
        history = _history(last, plan.steps_per_epoch)
        return how | {
            "checkpoints": _checkpoints(out, history, plan.steps_per_epoch),
            "history": history,
            "rows": len(rows),
            "seen": plan.seen,
            "longest": longest,
            **read_json(out / TRAINABLE),
            "steps": plan.steps,
            "seconds": time.perf_counter() - begin,
        }

    left = training.once(sft, model, train)
    checkpoints = [
        Checkpoint(**entry | {"file": training.folder / entry["file"]})
        for entry in left.pop("checkpoints")
    ]
    return Trained(key=training.key, checkpoints=checkpoints, **left)


def _check_rows(
    rows: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
    plan: Plan,
    found: ModelFolder,
    max_length: int,
) -> int:
    from emolib.models.affectgpt import AffectGPTProcessor

    if not rows or not (plan.order.min() >= 0 and plan.order.max() < len(rows)):
        raise DataError(f"the plan does not fit the {len(rows)} rows: make it from their counts")
    processor = AffectGPTProcessor.from_pretrained(found.path)
    return check_lengths([*rows, *val], processor, max_length)


def _history(checkpoint: Path, an_epoch: int) -> list[dict[str, float]]:
    wanted = ("step", "loss", "learning_rate", "grad_norm", "eval_loss")
    entries = read_json(checkpoint / "trainer_state.json")["log_history"]
    kept = [e for e in entries if "loss" in e or "eval_loss" in e]
    return [
        {k: e[k] for k in wanted if k in e} | {"epoch": round(e["step"] / an_epoch, 4)}
        for e in kept
    ]


def _checkpoints(
    out: Path, history: Sequence[dict[str, float]], an_epoch: int
) -> list[dict[str, Any]]:
    losses = {int(e["step"]): e["eval_loss"] for e in history if "eval_loss" in e}
    found = sorted((step_of(folder), folder) for folder in out.glob("checkpoint-*"))
    return [
        {
            "step": step,
            "epoch": step // an_epoch,
            "file": f"{folder.name}/{BRANCHES}",
            "eval_loss": losses.get(step),
        }
        for step, folder in found
    ]
