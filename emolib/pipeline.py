"""All notebooks of a profile through papermill, skipping what is up to date.

One after the other, or several that do not read each other at the same time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

from emolib import machine, runs
from emolib.errors import EmolibError, RunError
from emolib.execution import Running, StatusLine, begin, execute
from emolib.imports import code_hash, notebook_hash
from emolib.params import profiles
from emolib.params.stages import SCHEMAS, StageParams
from emolib.plan import STAGES, Outcome, Stage, named
from emolib.sources import source_hashes


@dataclass(frozen=True, slots=True)
class _Job:
    """What a profile's stages have in common while they run."""

    root: Path
    profile: str
    chosen: Sequence[Stage]
    fresh: bool
    fresh_trainings: bool
    status: StatusLine


def run_profile(
    root: Path,
    profile: str,
    *,
    start: str = "",
    only: str = "",
    fresh: bool = False,
    fresh_trainings: bool = False,
    jobs: int = 1,
    out: IO[str] | None = None,
) -> list[Outcome]:
    """Run a profile's notebooks; begin no more when one has failed.

    Every parameter file is checked before the first kernel starts. A stage whose notebook,
    inputs, data and parameters are those of a finished run is skipped; when the library's code
    has changed since, that is reported. An interrupted run is taken up where it stopped.

    Args:
        root: Project root.
        profile: Folder under ``params/``.
        start: Begin with this stage (number or name); earlier ones must be finished.
        only: Run this stage alone; the stages it reads must be finished.
        fresh: Use neither finished runs nor ledgers of the stages that are run; finished
            trainings are used.
        fresh_trainings: As ``fresh``, and train again.
        jobs: Stages at the same time, at least 1. Each has a process of its own and its share
            of the cores' threads, but every one sees all GPUs, and memory adds up. A script
            that asks for more than one needs ``if __name__ == "__main__":``.
        out: Where status lines go; standard output when None.

    Returns:
        The chosen stages that were come to, in the method's order.

    Raises:
        ParamsError: a wrong parameter file; nothing has been started then.
        RunError: ``start`` or ``only`` names no stage, ``jobs`` is below 1, or a needed earlier
            run is missing.
    """
    if jobs < 1:
        raise RunError(f"jobs = {jobs}: at least one stage runs at a time")
    chosen, fresh = _chosen(start, only), fresh or fresh_trainings
    for stage in STAGES:
        if stage in chosen and why_absent(root, profile, stage) == "":
            # Inputs are not known yet: any path will do for checking keys and types.
            profiles.resolve(root, profile, stage.name, dict.fromkeys(stage.feeds, "."))
    with StatusLine(out or sys.stdout).running() as status:
        outcomes = _run(_Job(root, profile, chosen, fresh, fresh_trainings, status), jobs)
    return [outcomes[stage.name] for stage in STAGES if stage in chosen and stage.name in outcomes]


def _run(job: _Job, jobs: int) -> dict[str, Outcome]:
    """Come to every stage once those it waits for have ended."""
    outcomes: dict[str, Outcome] = {}
    waiting = list(STAGES)
    running: dict[str, tuple[Running, contextlib.ExitStack]] = {}
    problem: EmolibError | None = None
    try:
        while waiting or running:
            failed = problem or any(outcome.state == "failed" for outcome in outcomes.values())
            ready = next((s for s in waiting if s.waits_for <= outcomes.keys()), None)
            if ready is None or failed or len(running) >= jobs:
                if not running:
                    break
                for name in _ended(running):
                    process, held = running.pop(name)
                    outcomes[name] = _close(job, name, process, held)
                continue
            waiting.remove(ready)
            if absent := why_absent(job.root, job.profile, ready):
                outcomes[ready.name] = Outcome(ready, absent)
                if ready in job.chosen:
                    job.status.say(f"{_label(ready)}  {absent}")
                continue
            try:
                begun = _come_to(job, ready, outcomes, jobs)
            except EmolibError as error:
                problem = error  # told when those under way have ended: they are not at fault
                continue
            if isinstance(begun, Outcome):
                outcomes[ready.name] = begun
            else:
                running[ready.name] = begun
    finally:
        for process, held in running.values():  # only where something was raised
            process.stop()
            held.close()
    if problem is not None:
        raise problem
    return outcomes


def _ended(running: Mapping[str, tuple[Running, contextlib.ExitStack]]) -> list[str]:
    ready = wait([process.answer for process, _ in running.values()])
    return [name for name, (process, _) in running.items() if process.answer in ready]


def _close(job: _Job, name: str, process: Running, held: contextlib.ExitStack) -> Outcome:
    try:
        error = process.result()
    finally:
        held.close()
    return _told(job, named(name), process.folder, process.started, error)


def _chosen(start: str, only: str) -> list[Stage]:
    if start and only:
        raise RunError("--from and --only exclude each other")
    if only:
        return [named(only)]
    return list(STAGES[STAGES.index(named(start)) :]) if start else list(STAGES)


def why_absent(root: Path, profile: str, stage: Stage) -> str:
    """Why a stage cannot be run at all; "" when it can."""
    if stage.name not in SCHEMAS or not (root / f"notebooks/{stage.name}.ipynb").is_file():
        return "missing: this version of emolib has no such notebook yet"
    if not (root / f"params/{profile}/{stage.name}.yaml").is_file():
        if profile not in profiles.profiles(root):
            profiles.stage_source(root, profile, stage.name)  # raises, naming the profiles
        return f"not in profile {profile}"
    return ""


def _come_to(
    job: _Job, stage: Stage, earlier: Mapping[str, Outcome], jobs: int
) -> Outcome | tuple[Running, contextlib.ExitStack]:
    """Find a stage's finished run, or run it; with several jobs only begin it."""
    inputs = {
        name: str(folder)
        for name, source in stage.feeds.items()
        if (folder := earlier[source].folder) is not None
    }
    wanted = stage in job.chosen
    own = profiles.stage_source(job.root, job.profile, stage.name).values
    given = {*inputs, *own, *stage.optional}
    absent = [stage.feeds[name] for name in stage.feeds if name not in given]
    if absent and not wanted:
        return Outcome(stage, "not run")
    if absent:
        raise RunError(
            f"{stage.name} reads {absent}, which has no finished run with today's notebook and "
            f"parameters: begin there with --from {absent[0][:2]}"
        )
    params = profiles.resolve(job.root, job.profile, stage.name, inputs)
    outputs = job.root / params.outputs
    with contextlib.ExitStack() as held:
        held.enter_context(_alone(outputs, job.profile, stage.name))
        key = stage_key(job.root, stage.name, params)
        code = code_hash(job.root / "notebooks" / f"{stage.name}.ipynb")
        found = runs.find(outputs, job.profile, stage.name, key)
        if found is not None and runs.is_finished(found) and not (job.fresh and wanted):
            if wanted:
                state = f"up to date{_made_earlier(found, code)}"
                job.status.say(f"{_label(stage)}  {state}  {short(job.root, found)}")
            return Outcome(stage, "up to date", found)
        if not wanted:
            return Outcome(stage, "not run")
        if found is None and (old := runs.old_runs(outputs, job.profile, stage.name)):
            version = runs.made_by_older(old[-1])
            job.status.say(
                f"{_label(stage)}  runs by emolib {version}, kept and not read ({len(old)}): "
                f"{short(job.root, old[-1].parent)}"
            )
        if found is None or job.fresh:
            own = {"fresh": job.fresh, "fresh_trainings": job.fresh_trainings}
            found = runs.create(outputs, job.profile, stage.name, key, **own, code=code)
        else:
            runs.annotate(found, code=code)
        job.status.begin(stage.name, _label(stage), stage.title, found)
        work = (job.root, job.profile, stage.name, found, inputs)
        if jobs > 1:
            return begin(*work, jobs=jobs), held.pop_all()
        started = time.monotonic()
        return _told(job, stage, found, started, execute(*work))


def _made_earlier(folder: Path, code: str) -> str:
    """Return in words that a run was made by other library code than today's; "" if it was not."""
    manifest = runs.read_manifest(folder)
    if manifest.get("code") == code:
        return ""
    git = manifest.get("git") or {}
    commits = machine.commits_since(str(git.get("revision") or ""))
    ago = f" ({commits} commit{'s' if commits > 1 else ''} ago)" if commits else ""
    return f" (made by an earlier state of emolib{ago}; --fresh to redo)"


def _told(job: _Job, stage: Stage, folder: Path, started: float, error: str) -> Outcome:
    """Say how a stage ended."""
    job.status.end(stage.name)
    seconds = time.monotonic() - started
    if error:
        job.status.say(
            f"{_label(stage)}  FAILED after {seconds:.0f} s: {error}\n"
            f"    the notebook up to there: {short(job.root, folder / 'notebook.ipynb')}"
        )
        return Outcome(stage, "failed", folder, seconds, error)
    job.status.say(f"{_label(stage)}  done in {seconds:.0f} s  {short(job.root, folder)}")
    return Outcome(stage, "done", folder, seconds)


def _label(stage: Stage) -> str:
    return f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage.name}"


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
    """Return the identity of a stage's run with this notebook, parameters, inputs and data."""
    inputs = {name: runs.input_sha(root / path) for name, path in params.input_paths().items()}
    inputs |= source_hashes(root, params)
    return runs.run_key(stage, params, inputs, notebook_hash(root / f"notebooks/{stage}.ipynb"))


def short(root: Path, path: Path) -> str:
    """A path as people type it: relative to the project root where it lies inside."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
