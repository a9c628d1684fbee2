"""The folder a conversion writes into: whose it is, how far it got, whether it is whole."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emolib import __version__
from emolib.errors import DataError
from emolib.files import read_json, write_json
from emolib.hashing import sha_file

REPORT = "conversion.json"
STATE = ".conversion.partial.json"
TOOL = f"emolib {__version__}"
_INDEX = "model.safetensors.index.json"
_FILES = (
    "args.json", "chat_template.jinja", "config.json", "generation_config.json",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
_SMALL = 32 * 2**20  # bytes; more than tokenizer, report and index need


def fingerprint(source: Path, files: Mapping[str, object]) -> dict[str, Any]:
    """What tells two sources apart without reading the weights."""
    rows: dict[str, Any] = {file: (source / file).stat().st_size for file in files}
    for name in ("config.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json"):
        if (source / name).is_file():
            rows[name] = sha_file(source / name)
    return rows


@contextmanager
def claimed(
    out: Path, request: dict[str, Any], times: list[int]
) -> Iterator[dict[str, Any] | None]:
    """Take ``out`` for one conversion; no other process can while this lasts.

    Args:
        out: The folder; made when it is not there.
        request: What is converted; JSON values.
        times: Time stamps of the source's shards, ns; a shard changed since begins anew.

    Yields:
        What an earlier conversion of the same source left to go on from, or a fresh state, or
        None: the conversion is finished and whole.

    Raises:
        DataError: ``out`` holds something else, or another process converts into it.
        OSError: ``out`` cannot be made or read.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: name a new folder")
    if not out.exists():
        out.mkdir(parents=True)
    handle = os.open(out, os.O_RDONLY)  # a lock on the folder itself leaves nothing behind
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise DataError(f"{out}: another process converts into this folder") from None
            # some network file systems lock no folders; then nobody is kept out
        yield _state(out, request, times)
    finally:
        os.close(handle)


def _state(out: Path, request: dict[str, Any], times: list[int]) -> dict[str, Any] | None:
    fresh: dict[str, Any] = {"request": request, "times": times, "tool": TOOL, "shards": {}}
    if (out / REPORT).is_file():
        report = read_json(out / REPORT)
        if report.get("request") != request:
            raise DataError(f"{out} holds another conversion: name a new folder")
        rows = report["shards"]
        kept = {file: row for file, row in rows.items() if holds(out, row)}
        needed = (*_FILES, *([_INDEX] if len(rows) > 1 else []))
        if len(kept) == len(rows) and all((out / name).is_file() for name in needed):
            return None
        # Not finished any more: files were lost.
        write_json(out / STATE, fresh | {"shards": kept})
        (out / REPORT).unlink()
    if (out / STATE).is_file():
        state: dict[str, Any] = read_json(out / STATE)
        if all(state.get(key) == fresh[key] for key in ("request", "times", "tool")):
            return state
        _remove_ours(out)  # a part of another conversion
    if any(out.iterdir()):
        raise DataError(f"{out} is not empty and not a conversion: name a new folder")
    write_json(out / STATE, fresh)
    return fresh


def holds(out: Path, row: Mapping[str, Any]) -> bool:
    """Whether the native shard that ``row`` of a state or report tells of is there, whole."""
    if "to" not in row or not (path := out / row["to"]).is_file():
        return False
    size = path.stat().st_size
    return bool(row.get("bytes", size) == size)


def check_space(out: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DataError: too little is free for ``needed`` bytes of weights and the small files.
    """
    here = sum(path.stat().st_size for path in out.glob("model*.safetensors"))
    free, missing = shutil.disk_usage(out).free, max(needed - here, 0) + _SMALL
    if missing > free:
        raise DataError(f"{out}: {missing / 1e9:.3g} GB are needed and {free / 1e9:.3g} GB free")


def tidy(out: Path) -> None:
    """Remove what only an unfinished conversion needs."""
    for path in [p for p in out.iterdir() if p.name == STATE or _is_draft(p)]:
        path.unlink()


def _remove_ours(out: Path) -> None:
    """Remove what a conversion writes, and nothing else."""
    for path in out.iterdir():
        ours = path.name in (*_FILES, _INDEX, STATE) or path.match("model*.safetensors")
        if ours or _is_draft(path):
            path.unlink()


def _is_draft(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix in (".tmp", ".part")
