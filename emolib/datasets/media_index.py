"""Which media files a data set has: one walk over its folders, no file opened."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emolib.datasets.folder import VIDEO_SUFFIXES
from emolib.datasets.validation import Reading
from emolib.errors import DataError

AUDIO_SUFFIXES = (".flac", ".m4a", ".mp3", ".wav")


@dataclass(slots=True)
class MediaIndex:
    """Usable files by clip name, and what cannot be used.

    Attributes:
        folder: The folder looked through.
        files: Clip name -> file.
        twice: Files left out because another one has the same clip name.
        empty: Files without a byte in them, or links that lead nowhere; left out.
    """

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def report(self, reading: Reading[Any]) -> None:
        """Add what cannot be used to the findings."""
        reading.find("error", "files with the clip name of another one", self.twice)
        reading.find("warning", "files without content, or links to nowhere", self.empty)


def stem(path: Path) -> str:
    """The clip name of flat sets: the file name without suffix."""
    return unicodedata.normalize("NFC", path.stem)


def index_media(
    folder: Path,
    suffixes: Iterable[str] = VIDEO_SUFFIXES,
    name: Callable[[Path], str] = stem,
) -> MediaIndex:
    """Look through a folder and those below it; hidden files and folders are left out.

    Cost: one directory listing a folder and one look-up a file (about 10 µs each).

    Raises:
        DataError: no such folder, or one that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be listed: {error.strerror}")

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    index = MediaIndex(folder)
    wanted = tuple(suffixes)
    for where, below, names in os.walk(folder, onerror=refuse):
        below[:] = sorted(one for one in below if not one.startswith("."))
        for one in sorted(names):
            if one.startswith(".") or not one.lower().endswith(wanted):
                continue
            path = Path(where, one)
            inside = path.relative_to(folder).as_posix()
            try:
                empty = path.stat().st_size == 0
            except OSError:
                empty = True
            if empty:
                index.empty.append(inside)
            elif (clip := name(path)) in index.files:
                index.twice.append(inside)
            else:
                index.files[clip] = path
    return index
