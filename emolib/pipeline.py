"""All notebooks of a profile through papermill, in order, skipping what is up to date."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from emolib import runs
from emolib.errors import RunError
from emolib.imports import code_hash
from emolib.params import profiles
from emolib.params.stages import SCHEMAS, StageParams
from emolib.progress import FILE_VARIABLE
from emolib.sources import source_hashes


@dataclass(frozen=True, slots=True)
class Stage:
    """One place in the method.

    Attributes:
        name: The notebook's name without suffix.
        title: What it does, for the status line.
        feeds: Input parameter -> the earlier stage whose run folder it takes.
        optional: Those of them the stage can do without.
    """

    name: str
    title: str
    feeds: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


STAGES = (
    Stage("00_data_check", "what data there is"),
    Stage("01_data_generation", "captions of images by two models"),
    Stage(
        "02_caption_filtering",
        "a judge keeps agreeing captions",
        {"captions": "01_data_generation"},
    ),
    Stage("03_internvl_lora", "zero-shot, LoRA, fine-tuned", {"pairs": "02_caption_filtering"}),
    Stage("04_affectgpt_sft", "AffectGPT's Q-Formers on face, voice and words"),
    Stage("05_face_crop_ablation", "whole image against face crop"),
    Stage("06_discriminative_model", "six-class model, out-of-fold"),
    Stage(
        "07_fusion_analysis",
        "co-judgment and the paper's tables",
        {
            "lora_run": "03_internvl_lora",
            "face_run": "05_face_crop_ablation",
            "discriminative_run": "06_discriminative_model",
            "affectgpt_run": "04_affectgpt_sft",
        },
        optional=("affectgpt_run",),
    ),
    Stage("08_baselines", "other models on the same clips and score"),
)


@dataclass(slots=True)
class Outcome:
    """What became of one stage.

    Attributes:
        stage: Which.
        state: "done", "up to date", "missing" (this version has no such notebook), "not in
            this profile" or "failed".
        folder: The run folder, where there is one.
        seconds: Wall-clock time of this call.
        error: Why it failed.
    """

    stage: Stage
    state: str
    folder: Path | None = None
    seconds: float = 0.0
    error: str = ""


def run_profile(
    root: Path,
    profile: str,
    *,
    start: str = "",
    only: str = "",
    fresh: bool = False,
    out: IO[str] | None = None,
) -> list[Outcome]:
    """Run a profile's notebooks; stop at the first that fails.

    Every parameter file is checked before the first kernel starts. A stage whose inputs, data,
    parameters and code are those of a finished run is skipped; an interrupted one is taken up
    where it stopped.

    Args:
        root: Project root.
        profile: Folder under ``params/``.
        start: Begin with this stage (number or name); earlier ones must be finished.
        only: Run this stage alone; the stages it reads must be finished.
        fresh: Use neither finished runs nor ledgers of the stages that are run.
        out: Where status lines go; standard output when None.

    Raises:
        ParamsError: a wrong parameter file; nothing has been started then.
        RunError: ``start`` or ``only`` names no stage, or a needed earlier run is missing.
    """
    out = out or sys.stdout
    chosen = _chosen(start, only)
    for stage in STAGES:
        if stage in chosen and why_absent(root, profile, stage) == "":
            # Inputs are not known yet: any path will do for checking keys and types.
            profiles.resolve(root, profile, stage.name, dict.fromkeys(stage.feeds, "."))
    outcomes: dict[str, Outcome] = {}
    for number, stage in enumerate(STAGES, start=1):
        label = f"[{number}/{len(STAGES)}] {stage.name}"
        if absent := why_absent(root, profile, stage):
            outcomes[stage.name] = Outcome(stage, absent)
            if stage in chosen:
                print(f"{label}  {absent}", file=out, flush=True)
            continue
        outcome = _run_stage(root, profile, stage, outcomes, stage in chosen, fresh, label, out)
        outcomes[stage.name] = outcome
        if outcome.state == "failed":
            break
    return [outcome for outcome in outcomes.values() if outcome.stage in chosen]


def _chosen(start: str, only: str) -> list[Stage]:
    if start and only:
        raise RunError("--from and --only exclude each other")
    if only:
        return [_named(only)]
    return list(STAGES[STAGES.index(_named(start)) :]) if start else list(STAGES)


def _named(text: str) -> Stage:
    for stage in STAGES:
        if text == stage.name or (text.isdecimal() and int(text) == int(stage.name[:2])):
            return stage
    raise RunError(f"no stage {text!r}: choose from {[s.name for s in STAGES]}")


def why_absent(root: Path, profile: str, stage: Stage) -> str:
    """Why a stage cannot be run at all; "" when it can."""
    if stage.name not in SCHEMAS or not (root / f"notebooks/{stage.name}.ipynb").is_file():
        return "missing: this version of emolib has no such notebook yet"
    if not (root / f"params/{profile}/{stage.name}.yaml").is_file():
        if profile not in profiles.profiles(root):
            profiles.stage_source(root, profile, stage.name)  # raises, naming the profiles
        return f"not in profile {profile}"
    return ""


def _run_stage(
    root: Path,
    profile: str,
    stage: Stage,
    earlier: Mapping[str, Outcome],
    wanted: bool,
    fresh: bool,
    label: str,
    out: IO[str],
) -> Outcome:
    inputs = {
        name: str(folder)
        for name, source in stage.feeds.items()
        if (folder := earlier[source].folder) is not None
    }
    own = profiles.stage_source(root, profile, stage.name).values
    given = {*inputs, *own, *stage.optional}
    absent = [stage.feeds[name] for name in stage.feeds if name not in given]
    if absent and not wanted:
        return Outcome(stage, "not run")
    if absent:
        raise RunError(
            f"{stage.name} reads {absent}, which has no finished run with today's parameters "
            f"and code: begin there with --from {absent[0][:2]}"
        )
    params = profiles.resolve(root, profile, stage.name, inputs)
    with _alone(root / params.outputs, profile, stage.name):
        return _find_or_execute(root, profile, stage, params, inputs, wanted, fresh, label, out)


def _find_or_execute(
    root: Path,
    profile: str,
    stage: Stage,
    params: StageParams,
    inputs: dict[str, str],
    wanted: bool,
    fresh: bool,
    label: str,
    out: IO[str],
) -> Outcome:
    outputs = root / params.outputs
    key = stage_key(root, stage.name, params)
    found = runs.find(outputs, profile, stage.name, key)
    if found is not None and runs.is_finished(found) and not (fresh and wanted):
        if wanted:
            print(f"{label}  up to date  {short(root, found)}", file=out, flush=True)
        return Outcome(stage, "up to date", found)
    if not wanted:
        return Outcome(stage, "not run")
    if found is None or fresh:
        found = runs.create(outputs, profile, stage.name, key, fresh=fresh)
    return _execute(root, profile, stage, {**inputs, "run_dir": str(found)}, label, out)


@contextlib.contextmanager
def _alone(outputs: Path, profile: str, stage: str) -> Iterator[None]:
    """Keep a second ``emolib run`` from working on the same stage at the same time.

    The system frees the lock however this process ends.

    Raises:
        RunError: another one is at work on it, or the folder cannot be written.
    """
    path = outputs / profile / f".{stage}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be written: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunError(
                f"{stage}: another `emolib run {profile}` (process {file.read().strip()}) is at "
                "work on it; wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def stage_key(root: Path, stage: str, params: StageParams) -> str:
    """Identity of the run of a stage with these parameters, inputs, data and today's code."""
    inputs = {name: runs.input_sha(root / path) for name, path in params.input_paths().items()}
    inputs |= source_hashes(root, params)
    code = code_hash(root / "notebooks" / f"{stage}.ipynb")
    return runs.run_key(stage, params.model_dump(mode="json"), inputs, code)


def _execute(
    root: Path, profile: str, stage: Stage, extra: dict[str, str], label: str, out: IO[str]
) -> Outcome:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    folder = Path(extra["run_dir"])
    own = profiles.stage_source(root, profile, stage.name).values
    started = time.monotonic()
    error = ""
    with _status_line(f"{label}  {stage.title}", folder / ".progress.json", out):
        try:
            papermill.execute_notebook(
                str(root / "notebooks" / f"{stage.name}.ipynb"),
                str(folder / "notebook.ipynb"),
                parameters={**own, **extra},
                kernel_name="python3",
                cwd=str(root),
                progress_bar=False,
                log_output=False,
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
        except PapermillExecutionError as problem:
            error = f"{problem.ename}: {problem.evalue}"
        except Exception as problem:  # a dead kernel comes in several shapes
            error = f"{type(problem).__name__}: {problem}"
    seconds = time.monotonic() - started
    if not error and not runs.is_finished(folder):
        error = "the notebook ended without a result"
    if error:
        print(f"{label}  FAILED after {seconds:.0f} s: {error}", file=out, flush=True)
        print(f"    the notebook up to there: {short(root, folder / 'notebook.ipynb')}", file=out)
        return Outcome(stage, "failed", folder, seconds, error)
    print(f"{label}  done in {seconds:.0f} s  {short(root, folder)}", file=out, flush=True)
    return Outcome(stage, "done", folder, seconds)


def short(root: Path, path: Path) -> str:
    """A path as people type it: relative to the project root where it lies inside."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


@contextlib.contextmanager
def _status_line(head: str, file: Path, out: IO[str]) -> Iterator[None]:
    """One line that follows the kernel's progress file while the block runs."""
    file.unlink(missing_ok=True)
    before = os.environ.get(FILE_VARIABLE)
    os.environ[FILE_VARIABLE] = str(file)
    stop = threading.Event()
    live = out.isatty()
    thread = threading.Thread(target=_follow, args=(head, file, out, stop, live), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if live:
            print("\r\x1b[2K", end="", file=out, flush=True)
        file.unlink(missing_ok=True)
        if before is None:
            del os.environ[FILE_VARIABLE]
        else:
            os.environ[FILE_VARIABLE] = before


def _follow(head: str, file: Path, out: IO[str], stop: threading.Event, live: bool) -> None:
    if not live:
        print(f"{head} …", file=out, flush=True)
        return
    started = time.monotonic()
    while not stop.wait(0.5):
        state = _read_state(file)
        done = f"{state['n']}/{state['total']}" if state.get("total") else str(state.get("n", ""))
        left = f", {state['left_s']:.0f} s left" if state.get("left_s") else ""
        tail = f"  {state['desc']} {done}{left}" if state else ""
        line = f"{head}  {time.monotonic() - started:.0f} s{tail}"
        width = max(20, os.get_terminal_size(out.fileno()).columns - 1)
        print(f"\r\x1b[2K{line[:width]}", end="", file=out, flush=True)


def _read_state(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
