"""Content hashes: the keys of ledgers, runs and caches.

Hashes of large files (weights) are kept for all processes in ``hashes.jsonl`` of the folder
``$EMOLIB_CACHE``, else ``$XDG_CACHE_HOME/emolib``, else ``~/.cache/emolib``: a file is read again
when its path, size or modification time has changed. The file may be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

_CHUNK = 1 << 20
_LARGE = 1 << 24  # bytes; smaller files are hashed as fast as looked up
# A file written this shortly ago may change again without another time stamp.
_SETTLED_NS = 2_000_000_000


def canonical(value: object) -> str:
    """Write plain JSON values in one fixed way: sorted keys, no spaces, no NaN.

    Raises:
        TypeError: something JSON cannot hold.
        ValueError: NaN or an infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def key_of(**parts: object) -> str:
    """Hash named plain values to 64 hex digits (SHA-256 of their canonical JSON)."""
    return hashlib.sha256(canonical(parts).encode("utf-8", "surrogatepass")).hexdigest()


def sha_file(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits.

    Cost: one read of the file; repeated calls are free while its size and time stamp stay the
    same, in other processes, too, when it has 16 MB or more.

    Raises:
        OSError: the file cannot be read, or is no file (reading a pipe would wait for ever).
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return _sha_file(str(path.absolute()), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _sha_file(path: str, size: int, mtime_ns: int) -> str:
    if size < _LARGE:
        return _read_sha(path)
    row = {"path": os.path.realpath(path), "size": size, "mtime_ns": mtime_ns}
    if known := _kept_sha(row):
        return known
    sha = _read_sha(path)
    state = Path(path).stat()
    unchanged = (state.st_size, state.st_mtime_ns) == (size, mtime_ns)
    if unchanged and time.time_ns() - mtime_ns > _SETTLED_NS:
        _keep_sha(row | {"sha256": sha})
    return sha


def _read_sha(path: str) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _kept_hashes() -> Path:
    if own := os.environ.get("EMOLIB_CACHE"):
        return Path(own) / "hashes.jsonl"
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "emolib" / "hashes.jsonl"


def _kept_sha(wanted: dict[str, object]) -> str:
    """Return the hash that was kept of a file in this state; "" for none."""
    try:
        lines = _kept_hashes().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            row = json.loads(line)
            if wanted.items() <= row.items() and len(row["sha256"]) == 64:
                return str(row["sha256"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # a line cut off, or no line of ours
    return ""


def _keep_sha(row: dict[str, object]) -> None:
    """Append one line in one write; without a place to write to nothing is kept."""
    file = _kept_hashes()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as out:
            out.write(b"\n" * _torn(file) + canonical(row).encode("utf-8", "replace") + b"\n")
    except OSError:
        return


def _torn(file: Path) -> bool:
    """Whether a killed process has left a line without an end."""
    data = file.read_bytes()
    return bool(data) and not data.endswith(b"\n")


def is_unchanged(path: Path, sha: str) -> bool:
    """Whether the file is still there with this content; free while its time stamp stays."""
    try:
        return sha_file(path) == sha
    except OSError:
        return False


def sha_files(paths: Iterable[Path], root: Path) -> str:
    """One hash over several files' relative names and contents, in name order."""
    rows = sorted((path.relative_to(root).as_posix(), sha_file(path)) for path in paths)
    return key_of(files=rows)
