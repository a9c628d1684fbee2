"""Trainings, kept by what their weights depend on, so that each is found again.

``outputs/<profile>/trainings/<key>/`` holds ``training.json`` (what the key is made of, in plain
values), ``train.log``, checkpoints, what was trained and, written last, ``result.json``. Another
parity gate, summarizer, server address, number of workers or commit of this repository gives the
same key; other rows, base weights or a recipe that changes what is learned give another one.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from emolib import machine
from emolib.engines.fingerprint import fingerprint
from emolib.engines.precision import weight_type
from emolib.engines.swift_setup import ModelFolder
from emolib.errors import DataError, TrainingError
from emolib.files import read_json, write_json
from emolib.hashing import key_of, sha_file
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import ModelParams
from emolib.params.training import LoraParams
from emolib.training.join import announced
from emolib.training.launch import LaunchPlan
from emolib.training.process import COMPLETE, Progress, build_environment, plan_here, run_worker

#: Raise it when code of ours changes what is learned from the same rows, weights and recipe
#: (prompt layout, image preprocessing, which tensors are trained, the order of rows).
TRAINING_VERSION = 1
TRAINING, RESULT = "training.json", "result.json"
# Their versions change numbers.
_SOFTWARE = ("torch", "transformers", "peft", "ms-swift")
# What of a model's parameters plays no part when it is trained.
_INFERENCE = {
    *("engine", "model", "adapters", "max_length", "decoding", "prices", "trust_remote_code"),
    *("max_tokens_key", "send_temperature", "extra_body"),
}
_POLL_S = 1.0  # between looks at a training of another process

_used: dict[Path, IO[bytes]] = {}  # locks of the finished trainings this process has opened

Say = Callable[[str], object]


def made_of(
    kind: str,
    model: ModelParams,
    found: ModelFolder,
    rows: Sequence[Mapping[str, Any]],
    val: Sequence[Mapping[str, Any]],
    recipe: LoraParams | SftParams,
    steps: int,
    **more: object,
) -> dict[str, Any]:
    """List what trained weights depend on, in plain values: all that a training's key is made of.

    How the rows of a step are divided among processes and batches plays no part: their number
    does. Neither do a recipe's ``OPERATIONAL`` parameters, nor ``max_length``, because a row
    that does not fit stops the training.

    Args:
        kind: "lora" or "affectgpt".
        model: What is trained.
        found: Its folder, read for the hash of its content.
        rows: Training rows; ``images``, ``videos`` and ``audios`` count by content.
        val: Validation rows.
        recipe: How.
        steps: Optimizer steps.
        **more: What else the weights depend on.
    """
    split = {"batch_size", "accumulate", "processes", "nodes"}
    counted = {"epochs", "steps"} if isinstance(recipe, LoraParams) else {"steps_per_epoch"}
    learned = recipe.identity()
    for name in (*split, *counted, "max_length"):
        learned.pop(name, None)
    nodes = recipe.nodes if isinstance(recipe, LoraParams) else 1
    rows_per_step = recipe.batch_size * recipe.accumulate * recipe.processes * nodes
    base = {name: v for name, v in model.identity().items() if name not in _INFERENCE}
    base["dtype"] = weight_type(model, found.dtype)
    return {
        "kind": kind,
        "training_version": TRAINING_VERSION,
        "software": {name: _version(name) for name in _SOFTWARE},
        "base": {"content": fingerprint(found.path), **base},
        "rows": _content(rows),
        "validation": _content(val),
        "recipe": learned | {"steps": steps, "rows_per_step": rows_per_step},
        **more,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package).partition("+")[0]  # less the CUDA build
    except importlib.metadata.PackageNotFoundError:
        return ""


def _content(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count and hash rows: what is learned of each, wherever its media lie."""
    from emolib.media.store import stored_name  # brings OpenCV

    learned = []
    for row in rows:
        kept = {k: v for k, v in row.items() if k not in ("provenance", "name", "source")}
        for kind in ("images", "videos", "audios"):
            if kind in row:
                # a frame store's file is named by its content
                kept[kind] = [stored_name(Path(p)) or sha_file(Path(p)) for p in row[kind]]
        learned.append(kept)
    return {"count": len(learned), "content": key_of(rows=learned)[:16]}


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a store, done or to be done.

    Attributes:
        folder: Where it is kept.
        parts: What its key is made of, see :func:`made_of`.
    """

    folder: Path
    parts: dict[str, Any]

    @classmethod
    def of(cls, store: Path, parts: dict[str, Any]) -> Training:
        """Name the training of a store that is made of ``parts``; nothing is written."""
        return cls(Path(store).resolve() / f"{parts['kind']}-{key_of(**parts)[:12]}", parts)

    @property
    def key(self) -> str:
        """Name of its folder."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be trained."""
        return (self.folder / RESULT).is_file()

    def once(
        self,
        recipe: LoraParams | SftParams,
        model: ModelParams,
        train: Callable[[Launch], dict[str, Any]],
        say: Say = print,
    ) -> dict[str, Any]:
        """Return what this training left, after training if it is not finished.

        Several processes may want it at once: one trains, the others wait for it.

        Args:
            recipe: How; says how it is launched.
            model: The model; says where.
            train: Trains and returns plain values for ``result.json``.
            say: Told what was found, what differs from the nearest other training, who is
                waited for.

        Raises:
            TrainingError: the folder holds another training, or ``train`` raised it.
            MissingDependencyError: DeepSpeed is asked for and not installed.
            ParamsError: there are fewer GPUs than processes.
        """
        begun = False
        if not self.finished:
            plan = plan_here(recipe, model)  # before anything is written
            with self._locked(say):
                if begun := not self.finished:
                    resume = self._claim(recipe, say)
                    launch = Launch(self.folder, plan, model, resume)
                    write_json(self.folder / RESULT, train(launch))
                    shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self._use()
        if not begun:
            say(f"Finished training {self.key} found: nothing is trained.")
        return dict(read_json(self.folder / RESULT))

    @contextmanager
    def _locked(self, say: Say) -> Iterator[None]:
        """Hold the folder for this process alone; the system frees it however that ends."""
        told = False
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("a+") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not told:
                        lock.seek(0)
                        say(f"Waiting for process {lock.read().strip()}, which trains {self.key}.")
                    told = True
                    _pause()
                    continue
                if not Path(lock.name).exists():  # removed (emolib clean) before we had it
                    continue
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
                yield
                return

    def _use(self) -> None:
        """Share the folder's lock until this process ends: ``emolib clean`` leaves it alone."""
        if self.folder not in _used:
            _used[self.folder] = (self.folder / ".lock").open("rb")
            fcntl.flock(_used[self.folder], fcntl.LOCK_SH)

    def _claim(self, recipe: LoraParams | SftParams, say: Say) -> Path | None:
        """Record what is trained here; return the checkpoint to go on from."""
        nodes = recipe.nodes if isinstance(recipe, LoraParams) else 1
        sharded = recipe.processes * nodes if recipe.deepspeed else 0
        note, resume = self.folder / TRAINING, last_checkpoint(self.folder)
        if note.is_file():
            before = read_json(note)
            if before.get("made_of") != json.loads(json.dumps(self.parts)):
                named = "; ".join(differences(before.get("made_of") or {}, self.parts))
                raise TrainingError(f"{self.folder} holds another training ({named}): remove it")
            if resume and before.get("sharded_over", 0) != sharded:
                raise TrainingError(
                    f"{self.folder}: DeepSpeed divided the checkpoints among "
                    f"{before['sharded_over']} processes, which {sharded} cannot read: set as "
                    "many as before, or remove the folder to begin anew"
                )
        if resume:
            say(f"Interrupted training {self.key} goes on from step {step_of(resume)}.")
        else:
            say(f"Training {self.key} begins. {self.nearest()}")
        about = {"emolib": machine.versions()["emolib"], "git": machine.git_state()}
        values = {"made_of": self.parts, "sharded_over": sharded, "begun_by": about}
        write_json(note, values)
        return resume

    def nearest(self) -> str:
        """Say what differs from the most similar training of the same kind beside it."""
        found = []
        for note in sorted(self.folder.parent.glob(f"*/{TRAINING}")):
            if note.parent == self.folder:
                continue
            try:
                parts = dict(read_json(note)["made_of"])
            except (DataError, KeyError, TypeError, ValueError):
                continue
            if parts.get("kind") == self.parts["kind"]:
                found.append((differences(parts, self.parts), note.parent))
        if not found:
            return "No training of this kind is kept yet."
        named, other = min(found, key=lambda pair: len(pair[0]))
        state = "finished" if (other / RESULT).is_file() else "unfinished"
        return f"From {other.name} ({state}) it differs in {'; '.join(named)}."


@dataclass(frozen=True, slots=True)
class Launch:
    """A training that is to be run now.

    Attributes:
        folder: Where it is kept.
        plan: How its processes are started.
        model: What is trained.
        resume: The checkpoint it goes on from; None = from the start.
    """

    folder: Path
    plan: LaunchPlan
    model: ModelParams
    resume: Path | None

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        steps: int,
        progress: Progress | None,
        **environ: str,
    ) -> tuple[Path, dict[str, Any]]:
        """Run the worker to its end.

        Args:
            module: Of emolib, run with ``python -m``.
            arguments: Its own.
            steps: Optimizer steps it must come to.
            progress: Called as ``progress(step, steps, entry)`` for every new history entry.
            **environ: Further environment variables.

        Returns:
            The last checkpoint, and ``resumed_from`` and ``command`` for a result.

        Raises:
            TrainingError: it failed, or ended early.
        """
        command = self.plan.command(module, arguments)
        environment = self.plan.environment(build_environment(self.model, self.folder)) | environ
        with announced(command, environment, self.plan, self.model.device, self.folder):
            run_worker(command, environment, self.folder, steps, progress)
        last = last_checkpoint(self.folder)
        at = 0 if last is None else step_of(last)
        if last is None or at != steps:
            log = self.folder / "train.log"
            raise TrainingError(f"training ended at step {at} of {steps}; see {log}")
        resumed = step_of(self.resume) if self.resume else 0
        return last, {"resumed_from": resumed, "command": command}


def _pause() -> None:
    time.sleep(_POLL_S)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name what differs between two trainings, e.g. ``recipe.learning_rate: 0.0001 -> 0.0002``."""
    before, after = dict(_flat(old)), dict(_flat(new))
    named = []
    for name in [*after, *(name for name in before if name not in after)]:
        one, other = before.get(name), after.get(name)
        if one != other:
            hashed = name.rpartition(".")[2] in ("content", "order")
            named.append(f"{name}: other content" if hashed else f"{name}: {one} -> {other}")
    return named


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", list(value) if isinstance(value, tuple) else value


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; what a kill left half written is removed."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).is_file():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the step a ``checkpoint-<step>`` folder was written at."""
    return int(checkpoint.name.rsplit("-", 1)[1])
