"""Run folders: what went in, what came out, on what machine, and whether it is complete.

``outputs/<profile>/<stage>/<UTC>-<key7>/`` holds ``params.yaml``, ``manifest.json``, the stage's
files, ``figures/``, the executed ``notebook.ipynb`` and, written last, ``result.json``: where it
exists the run is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from emolib import machine, quarantine
from emolib.errors import DataError, RunError
from emolib.files import read_json, read_jsonl, write_atomic, write_json
from emolib.hashing import canonical, key_of, sha_file
from emolib.params.stages import StageParams

RESULT, MANIFEST, PARAMS = "result.json", "manifest.json", "params.yaml"
#: Layout of run folders. Folders of another format (emolib 0.1 wrote none) are named as old.
FORMAT = 2
# A killed parent's kernel may live for a moment longer; wait this long for its lock.
_LOCK_PATIENCE_S = 60.0


class Run:
    """One run of one stage, open for writing. Made by :func:`start`.

    Attributes:
        dir: The run folder.
        ledger_dir: Where this run's ledgers lie (shared by a profile's runs, so that no answer
            is ever computed twice; inside the folder for a run made with ``--fresh``).
        trainings: Where its trainings are kept (shared by a profile's runs, so that nothing is
            trained twice; inside the folder for a run made with ``--fresh-trainings``).
        resumed: Whether an earlier, interrupted process had begun this run.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], resumed: bool) -> None:
        self.dir = folder
        self.ledger_dir = Path(os.path.normpath(folder / manifest["ledger_dir"]))
        self.trainings = Path(os.path.normpath(folder / manifest["trainings_dir"]))
        self.resumed = resumed
        self._manifest = manifest
        self._started = time.monotonic()

    def path(self, name: str) -> Path:
        """A file inside the run folder; its parent is made."""
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def ledger(self, name: str) -> Path:
        """Path of the named ledger of this run."""
        return self.ledger_dir / f"{name}.jsonl"

    def figure(self, figure: Any, name: str) -> Path:
        """Save a matplotlib figure as ``figures/<name>.png``."""
        path = self.path(f"figures/{name}.png")
        figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
        return path

    def finish(self, result: Mapping[str, Any], files: Iterable[Path] = ()) -> Path:
        """Close the run: hashes of ``files``, the manifest, and last ``result.json``.

        ``result`` must be plain JSON without NaN and without times, so that two runs of the
        same inputs give the same bytes; rows of ``.jsonl`` files are hashed without ``seconds``.

        Raises:
            RunError: the run is already finished.
        """
        target = self.dir / RESULT
        if target.exists():
            raise RunError(f"{target} exists: a finished run is never changed, start a new one")
        hashes = {path.relative_to(self.dir).as_posix(): _content_sha(path) for path in files}
        self._close("success")
        return write_json(target, {**result, **_quarantined(result), "files": hashes})

    def fail(self, reason: str) -> None:
        """Record that the run stopped with an error; it can be taken up again."""
        self._close("failed", error=reason[-2000:])

    def _close(self, status: str, **more: object) -> None:
        self._manifest |= {
            "status": status,
            "finished": _now(),
            "seconds": round(
                self._manifest.get("seconds", 0.0) + time.monotonic() - self._started, 1
            ),
            "peak_memory_mb": machine.peak_memory_mb(),
            "device": machine.device(),
            **more,
        }
        write_json(self.dir / MANIFEST, self._manifest)
        self._started = time.monotonic()

    def __repr__(self) -> str:
        return f"Run({self.dir}{', resumed' if self.resumed else ''})"


def _quarantined(result: Mapping[str, Any]) -> dict[str, Any]:
    """Files of this run that hung or crashed a decoder, as a list and as a table."""
    rows = quarantine.met()
    if not rows:
        return {}
    table = {
        "title": "Quarantined files",
        "columns": ["file", "why"],
        "rows": [[row["file"], row["why"]] for row in rows],
    }
    return {"quarantined": rows, "tables": [*result.get("tables", []), table]}


def _content_sha(path: Path) -> str:
    """Hash of a stage's file; how long each answer took plays no part."""
    if path.suffix != ".jsonl":
        return sha_file(path)
    digest = hashlib.sha256()
    for row in read_jsonl(path):
        row.pop("seconds", None)
        digest.update(canonical(row).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def run_key(stage: str, params: StageParams, inputs: Mapping[str, str], notebook: str = "") -> str:
    """Return the identity of a run: same stage, parameters, inputs and notebook, same key.

    Parameters that no result depends on play no part (``OPERATIONAL``, e.g. a server's address
    or where the run writes), nor do models that the stage does not use, nor what input folders
    are called: their content does. The library's code plays none, either.

    Args:
        stage: The notebook's name without suffix.
        params: The stage's checked parameters.
        inputs: Content hashes of what it reads.
        notebook: Hash of the notebook's code.
    """
    kept = {key: value for key, value in params.identity().items() if key not in inputs}
    return key_of(stage=stage, params=kept, inputs=dict(inputs), notebook=notebook)


def create(
    outputs: Path,
    profile: str,
    stage: str,
    key: str,
    *,
    fresh: bool = False,
    fresh_trainings: bool = False,
    **more: object,
) -> Path:
    """Make a new run folder with its first manifest (status "created").

    Args:
        outputs: Folder of all runs.
        profile: Its part of it.
        stage: The notebook's name without suffix.
        key: The run's identity, see :func:`run_key`.
        fresh: Answer caches of its own instead of the profile's.
        fresh_trainings: Trainings of its own instead of the profile's.
        **more: Plain values for the manifest.

    Raises:
        RunError: the folder cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    stem = outputs / profile / stage / f"{stamp}-{key[:7]}"
    folder, number = stem, 1
    while True:
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            if not folder.is_dir():  # a file stands where a folder above it should
                raise RunError(f"{folder}: cannot be made: a file is in its way") from None
            number += 1
            folder = stem.with_name(f"{stem.name}-{number}")
        except OSError as error:
            raise RunError(f"{folder}: cannot be made: {error.strerror or error}") from error
    home = outputs / profile
    own = {"ledger": fresh, "trainings": fresh_trainings}
    _begin(folder, home, stage, profile, key, own, more)
    return folder


def _begin(
    folder: Path,
    home: Path,
    stage: str,
    profile: str,
    key: str,
    own: Mapping[str, bool],
    more: Mapping[str, object],
) -> None:
    kept = {
        # relative, because a checkout may be moved
        f"{name}_dir": os.path.relpath((folder if own.get(name) else home) / name, folder)
        for name in ("ledger", "trainings")
    }
    manifest = {
        "format": FORMAT,
        "stage": stage,
        "profile": profile,
        "key": key,
        "status": "created",
        "created": _now(),
        **kept,
        **more,
    }
    write_json(folder / MANIFEST, manifest)


def find(outputs: Path, profile: str, stage: str, key: str) -> Path | None:
    """The newest run folder with this key: a finished one if there is any, else an open one.

    Folders without a readable manifest are passed over.
    """
    folders = sorted((outputs / profile / stage).glob(f"*-{key[:7]}*"), reverse=True)
    matching = [f for f in folders if _key_of(f) == key]
    return next((f for f in matching if is_finished(f)), matching[0] if matching else None)


def _key_of(folder: Path) -> object:
    try:
        return read_manifest(folder).get("key")
    except DataError:
        return None


def latest(outputs: Path, profile: str, stage: str) -> Path | None:
    """Return the newest finished run of a stage, for reports; stages never read "the latest".

    Runs of an older format are passed over (:func:`old_runs` lists them).
    """
    folders = sorted((outputs / profile / stage).glob("*"), reverse=True)
    return next((f for f in folders if is_finished(f) and not made_by_older(f)), None)


def old_runs(outputs: Path, profile: str, stage: str) -> list[Path]:
    """Return a stage's run folders that an older version of emolib wrote, oldest first."""
    return [f for f in sorted((outputs / profile / stage).glob("*")) if made_by_older(f)]


def made_by_older(folder: Path) -> str:
    """Return the version of emolib that wrote a folder in another format; "" = this format's.

    A folder without a readable manifest is no old one: it is damaged, or no run at all.
    """
    try:
        manifest = read_manifest(folder)
    except DataError:
        return ""
    if not manifest or manifest.get("format") == FORMAT:
        return ""
    return str(manifest.get("versions", {}).get("emolib") or "0.1")


def annotate(folder: Path, **values: object) -> None:
    """Add plain values to the manifest of a run that is not finished."""
    write_json(folder / MANIFEST, read_manifest(folder) | values)


def is_finished(folder: Path) -> bool:
    """Whether the run is complete."""
    return (folder / RESULT).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The run's manifest; empty when the folder has none."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    read = read_json(path)
    if not isinstance(read, dict):
        raise DataError(f"{path}: not a manifest; the run folder is damaged, remove it")
    return read


def read_result(folder: Path) -> dict[str, Any]:
    """The finished run's result.

    Raises:
        RunError: no such folder, an older version's, or the run is not finished.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    _refuse_older(folder)
    if not is_finished(folder):
        status = read_manifest(folder).get("status", "unknown")
        raise RunError(f"{folder}: the run is not finished (status {status}); run it again first")
    read = read_json(folder / RESULT)
    if not isinstance(read, dict):
        raise DataError(f"{folder / RESULT}: not a result; the run folder is damaged, remove it")
    return read


def _refuse_older(folder: Path) -> None:
    if version := made_by_older(folder):
        raise RunError(
            f"{folder}: made by emolib {version}, whose run folders this version does not read; "
            "the folder stays as it is: run the stage again"
        )


def input_sha(path: Path) -> str:
    """Hash of a stage's input: a run folder's ``result.json``, or a file.

    Raises:
        RunError: no such file or run, or the run is not finished.
    """
    if path.is_dir():
        read_result(path)
        return sha_file(path / RESULT)
    if not path.is_file():
        raise RunError(f"{path}: no such file or run folder")
    return sha_file(path)


def start(stage: str, params: StageParams) -> Run:
    """Open the run of a notebook, in ``params.run_dir`` or a new folder.

    Args:
        stage: The notebook's name without suffix.
        params: The stage's checked parameters.

    Raises:
        RunError: the folder is finished, another process works in it, or an input run is
            missing or unfinished.
    """
    values = params.model_dump(mode="json")
    inputs = {name: input_sha(path) for name, path in params.input_paths().items()}
    outputs = Path(params.outputs)
    key = run_key(stage, params, inputs)
    if not params.run_dir:
        folder = create(outputs, params.profile, stage, key)
    else:
        folder = Path(params.run_dir)
        if not (folder / MANIFEST).is_file():
            _begin(folder, outputs / params.profile, stage, params.profile, key, {}, {})
        _refuse_older(folder)
    if is_finished(folder):
        raise RunError(f"{folder}: this run is finished and is never changed; give another run_dir")
    _acquire(folder)
    if is_finished(folder):  # by the process we waited for
        _release(folder)
        raise RunError(f"{folder}: another process has just finished this run")
    manifest = read_manifest(folder)
    resumed = manifest["status"] != "created"
    manifest |= {
        "status": "running",
        "started": _now(),
        "attempts": manifest.get("attempts", 0) + 1,
        "pid": os.getpid(),
        "git": machine.git_state(),
        "versions": machine.versions(),
        "inputs": inputs,
    }
    manifest.pop("error", None)
    write_atomic(
        folder / PARAMS, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    )
    write_json(folder / MANIFEST, manifest)
    quarantine.supervise(params.decode, quarantine.path_for(outputs, params.profile))
    run = Run(folder, manifest, resumed)
    _watch_notebook(run)
    return run


_held: dict[Path, int] = {}  # this process's locks, by folder


def _release(folder: Path) -> None:
    """Give the folder's lock back, if this process has it."""
    if (lock := _held.pop(folder.resolve(), None)) is not None:
        os.close(lock)


def _acquire(folder: Path) -> None:
    """Lock the folder for this process; the system frees it however the process ends.

    A cell that is run a second time opens the same run again: this process is never in its own
    way.
    """
    _release(folder)
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held[folder.resolve()] = lock
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                pid = read_manifest(folder).get("pid")
                raise RunError(
                    f"{folder}: process {pid} is working in it; wait or stop it"
                ) from None
            time.sleep(0.2)


_watched: dict[str, Run] = {}  # the newest run of this kernel


def _watch_notebook(run: Run) -> None:
    """Inside a kernel, mark the run as failed when a cell raises."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return

    def after_cell(result: Any) -> None:
        if _watched.get("run") is not run:
            return  # the cell that opens a run was run again
        error = result.error_in_exec or result.error_before_exec
        if error is not None and not is_finished(run.dir):
            run.fail(f"{type(error).__name__}: {error}")

    _watched["run"] = run
    shell.events.register("post_run_cell", after_cell)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
