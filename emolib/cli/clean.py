"""``emolib clean``: what a profile's outputs take on disk, and removal of what nothing uses."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib import runs
from emolib.errors import RunError
from emolib.params import profiles
from emolib.params.loading import project_root, read_yaml
from emolib.pipeline import short
from emolib.plan import STAGES
from emolib.report import format_table

_ABOUT = """\
List what a profile's outputs take on disk and what may be removed. Nothing is removed without
--delete, and nothing outside outputs/PROFILE.

Kept: finished runs, the trainings they use or that a parameter file names, answer caches, stored
frames, and whatever a process is working in. Removed: trainings that no finished run uses, and
what the other options add. A finished run you no longer want is a folder to remove yourself;
then nothing may use its training any more.
"""
_REMOVED = ".removed-"


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "clean",
        help="what a profile's outputs take on disk; removes what nothing uses",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", help="folder under params/, e.g. demo")
    parser.add_argument(
        "--unfinished", action="store_true", help="also interrupted runs and trainings"
    )
    parser.add_argument(
        "--merged",
        action="store_true",
        help="also merged weights beside their LoRA; notebook 03 merges again when it needs to",
    )
    parser.add_argument("--old", action="store_true", help="also runs of older versions of emolib")
    parser.add_argument(
        "--answers",
        action="store_true",
        help="also the answer caches: every model is then asked everything again",
    )
    parser.add_argument("--delete", action="store_true", help="remove them (default: only list)")
    parser.set_defaults(handler=run)


@dataclass(frozen=True, slots=True)
class Item:
    """A file or folder of a profile's outputs.

    Attributes:
        what: Kind, in words.
        path: Where it lies.
        size: Bytes on disk.
        removed_by: Option that removes it besides ``--delete``; "delete" = none needed; "" = it
            is kept.
        why: Why it is kept, or what it is.
    """

    what: str
    path: Path
    size: int
    removed_by: str
    why: str


def run(args: argparse.Namespace) -> int:
    """List, and remove what was asked for."""
    root = project_root()
    outputs = root / profiles.base_params(root, args.profile).outputs
    home = outputs / args.profile
    if not home.is_dir():
        raise RunError(f"{home}: no such folder: the profile has no outputs yet")
    found = sorted(items(root, home), key=lambda item: -item.size)
    chosen = [item for item in found if _is_chosen(item, args)]
    rows = []
    for item in found:
        action = "remove" if item in chosen else "keep"
        if item.removed_by not in ("", "delete") and item not in chosen:
            action = f"keep (--{item.removed_by} removes it)"
        where = str(item.path.relative_to(home))
        rows.append([item.what, where, _text(item.size), action, item.why])
    print(f"{short(root, home)}: {_text(sum(item.size for item in found))}\n")
    print(format_table(["what", "where", "size", "action", "why"], rows, widest=60))
    if shared := _shared(root, outputs):
        print(f"\nShared between profiles, not touched: {', '.join(shared)}")
    total = _text(sum(item.size for item in chosen))
    if not args.delete:
        hint = "; --delete frees them" if chosen else ""
        print(f"\n{total} would be freed by removing {len(chosen)} of {len(found)}{hint}.")
        return 0
    removed = [item for item in chosen if remove(item.path, home)]
    print(f"\n{_text(sum(item.size for item in removed))} freed: {len(removed)} removed.")
    for item in chosen:
        if item not in removed:
            print(f"  {short(root, item.path)}: kept, a process has begun to use it")
    return 0


def _is_chosen(item: Item, args: argparse.Namespace) -> bool:
    return item.removed_by == "delete" or bool(item.removed_by and getattr(args, item.removed_by))


def items(root: Path, home: Path) -> Iterator[Item]:
    """Find everything in a profile's outputs.

    Args:
        root: Project root.
        home: ``outputs/<profile>``.

    Raises:
        DataError: a finished run cannot be read, so that it is not known what it uses.
        ParamsError: a parameter file cannot be read.
    """
    used = _used_trainings(home)
    working = any(in_use(lock.parent) for lock in home.glob("*/*/.lock"))
    named = _named_paths(root, home.resolve())
    stages = {stage.name for stage in STAGES}
    for path in sorted(home.iterdir()):
        if path.is_symlink() or path.is_file():
            yield Item("file", path, size_of(path), "", "")
        elif path.name in stages:
            for folder in sorted(path.iterdir()):
                yield _run_item(folder)
        elif path.name == "trainings":
            for folder in sorted(path.iterdir()):
                yield from _training_items(folder, used, named)
        elif path.name == "ledger":
            why = "in use" if working else "what models answered"
            yield Item("answer cache", path, size_of(path), "" if working else "answers", why)
        elif path.name == "images":
            yield Item("stored frames", path, size_of(path), "", "training rows name them")
        else:
            yield Item("other", path, size_of(path), "", "")


def _run_item(folder: Path) -> Item:
    size = size_of(folder)
    if folder.name.startswith(_REMOVED):
        return Item("remains", folder, size, "delete", "of an interrupted removal")
    if not (folder / runs.MANIFEST).is_file() or folder.is_symlink():
        return Item("other", folder, size, "", "no run folder")
    if in_use(folder):
        return Item("run", folder, size, "", "in use")
    if version := runs.made_by_older(folder):
        return Item("old run", folder, size, "old", f"made by emolib {version}; not read")
    if runs.is_finished(folder):
        return Item("run", folder, size, "", "finished")
    status = str(runs.read_manifest(folder).get("status"))
    return Item("run", folder, size, "unfinished", f"{status}; goes on when run again")


def _training_items(folder: Path, used: dict[Path, str], named: dict[Path, str]) -> Iterator[Item]:
    """One item for a training, one for the weights merged from it."""
    if folder.name.startswith(_REMOVED):
        yield Item("remains", folder, size_of(folder), "delete", "of an interrupted removal")
        return
    if folder.is_symlink() or not folder.is_dir():
        yield Item("file", folder, size_of(folder), "", "")
        return
    real = folder.resolve()
    inside = {path: file for path, file in named.items() if path.is_relative_to(real)}
    merged = [p for p in sorted(folder.glob("merged-*")) if p.is_dir() and not p.is_symlink()]
    size = size_of(folder) - sum(map(size_of, merged))
    busy = "in use" if in_use(folder) else ""
    users = used.get(real, "")
    finished = (folder / runs.RESULT).is_file()
    kept = busy or users or next(iter(inside.values()), "")
    removed_by = "" if kept else "delete" if finished else "unfinished"
    state = "no finished run uses it" if finished else "unfinished; goes on when wanted again"
    yield Item("training", folder, size, removed_by, kept or state)
    for weights in merged:
        wanted = [f for p, f in inside.items() if p.is_relative_to(weights.resolve())]
        why = busy or next(iter(wanted), "")
        # with its training, or by its own option
        chosen = "" if why else removed_by or "merged"
        yield Item("merged weights", weights, size_of(weights), chosen, why or "of this LoRA")


def _used_trainings(home: Path) -> dict[Path, str]:
    """Return the folders of trainings that finished runs name, and one such run."""
    used = {}
    for stage in STAGES:
        for folder in sorted((home / stage.name).glob("*")):
            if not runs.is_finished(folder) or runs.made_by_older(folder):
                continue
            store = folder / str(runs.read_manifest(folder).get("trainings_dir", ""))
            for key in runs.read_result(folder).get("trainings", []):
                path = Path(os.path.normpath(store / str(key))).resolve()
                used[path] = f"used by {stage.name}/{folder.name}"
    return used


def _named_paths(root: Path, home: Path) -> dict[Path, str]:
    """Return the paths inside ``home`` that any profile's parameter files name."""
    found = {}
    for file in sorted((root / "params").rglob("*.yaml")):
        for text in _texts(read_yaml(file).values):
            try:
                path = (root / Path(text).expanduser()).resolve()
            except (OSError, RuntimeError, ValueError):  # no path at all
                continue
            if path.is_relative_to(home):
                found[path] = f"named in {file.relative_to(root)}"
    return found


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def in_use(folder: Path) -> bool:
    """Whether a process has locked a run's or training's folder."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # it has never been locked
    return False


def remove(path: Path, home: Path) -> bool:
    """Remove a folder inside ``home``; return False when a process uses it.

    It is renamed first: what a kill leaves of it is never taken for a run or a training.

    Raises:
        RunError: it is not inside ``home``, a link, or cannot be removed.
    """
    if path.is_symlink() or not path.resolve().is_relative_to(home.resolve()) or path == home:
        raise RunError(f"{path}: not inside {home}: not removed")
    if in_use(path) or in_use(path.parent):
        return False
    try:
        if not path.name.startswith(_REMOVED):
            path = path.rename(path.with_name(f"{_REMOVED}{path.name}"))
        shutil.rmtree(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be removed: {error.strerror or error}") from error
    return True


def size_of(path: Path) -> int:
    """Return the bytes a file or folder takes on disk; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_blocks * 512
    size = 0
    for where, _, names in os.walk(path):
        for name in names:
            try:
                size += os.lstat(os.path.join(where, name)).st_blocks * 512  # noqa: PTH118
            except OSError:
                continue  # removed meanwhile
    return size


def _shared(root: Path, outputs: Path) -> list[str]:
    own = {*profiles.profiles(root), "record"}
    folders = [p for p in sorted(outputs.iterdir()) if p.is_dir() and p.name not in own]
    return [f"{short(root, p)} {_text(size_of(p))}" for p in folders]


def _text(size: int) -> str:
    """Return bytes as people read them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
