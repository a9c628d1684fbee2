"""Content hashes: the keys of ledgers, runs and caches."""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

_CHUNK = 1 << 20


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

    Cost: one read of the file; repeated calls in one process are free while its size and
    time stamp stay the same.

    Raises:
        OSError: the file cannot be read, or is no file (reading a pipe would wait for ever).
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return _sha_file(str(path.absolute()), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _sha_file(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


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
