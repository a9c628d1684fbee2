"""Read a folder of videos, with or without a table of words and labels."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from emolib.datasets.clip import Clip
from emolib.datasets.table import Row, few, read_table
from emolib.errors import DataError
from emolib.files import plain_name, without_zeros
from emolib.params.schemas import DataParams, as_path

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


def read_folder(params: DataParams) -> list[Clip]:
    """List the clips under ``params.root``, sub-folders included, no media opened.

    A clip is named by its file name without suffix; files that share one are named by
    their path below the root, without suffix where that suffices. Names in the table may be
    written either way, with or without suffix. A video without a line in the table is a clip
    about which nothing is known; a line without a video is an error.

    Cost: one directory listing a folder; ``split`` and ``limit`` are the caller's to apply.

    Returns:
        Clips in the order of their paths.

    Raises:
        DataError: no such folder, no videos in it, a folder that cannot be listed, or a
            table that is wrong (see :func:`emolib.datasets.table.read_table`) or does not
            fit the videos.
    """
    root = as_path(params.root)
    if root is None:
        raise DataError("data.root is empty: set it to the folder that holds the videos")
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    clips = _name([(path, path.relative_to(root)) for path in _videos(root)])
    if not clips:
        raise DataError(f"{root}: no videos in it or below ({', '.join(VIDEO_SUFFIXES)})")
    if table := as_path(params.table):
        table = table if table.is_absolute() or table.exists() else root / table
        clips, _ = _join(clips, read_table(table), table, root)
    return clips


def clips_from_paths(
    paths: Iterable[Path | str],
    table: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Clip]:
    """Make clips of files and folders as given, e.g. on a command line.

    A file is taken whatever its suffix; of a folder the videos below it. A file given twice
    is one clip. A table may cover more videos than are given here.

    Args:
        paths: Files and folders.
        table: CSV about them, see :func:`emolib.datasets.table.read_table`.
        say: Is told how many lines of the table name none of the videos.

    Raises:
        DataError: a path that does not exist, a folder without videos, nothing given, or a
            table that is wrong or names none of the videos.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = list(_videos(path))
            if not files:
                raise DataError(f"{path}: no videos in it or below ({', '.join(VIDEO_SUFFIXES)})")
        elif path.exists():
            files = [path]
        else:
            raise DataError(f"{path}: no such file or folder")
        for file in files:
            inside = file.relative_to(path) if path.is_dir() else Path(file.name)
            found.setdefault(file.resolve(), (file, inside))
    if not found:
        raise DataError("no videos given: name files or folders")
    clips = _name([(file.absolute(), inside) for file, inside in found.values()])
    if table is None:
        return clips
    root = Path(os.path.commonpath([clip.video.parent for clip in clips]))
    rows = read_table(table)
    joined, unmatched = _join(clips, rows, table, root, partial=True)
    if unmatched:
        say(f"{table}: of {len(rows)} lines {few(unmatched)} without a video among those given")
    return joined


def _videos(root: Path) -> Iterator[Path]:
    """Give the video files below ``root`` in the order of their paths, each folder once.

    Links to folders are followed, but never in circles. Hidden files (also what macOS writes
    beside every file on foreign disks, ``._clip.mp4``) and hidden folders are left out.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be listed: {error.strerror}")

    seen = set()
    files = []
    for folder, below, names in os.walk(root, followlinks=True, onerror=refuse):
        real = Path(folder).resolve()
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES:
                files.append(Path(folder) / name)
    broken = [str(file) for file in files if not file.exists()]
    if broken:
        raise DataError(f"{root}: links that lead nowhere: {few(sorted(broken))}")
    return iter(sorted(files))


def _name(files: Sequence[tuple[Path, Path]]) -> list[Clip]:
    """Give every (file, path below its root) the shortest of its names that is its own."""
    forms = [
        lambda path, inside: _plain(inside.stem),
        lambda path, inside: _plain(inside.with_suffix("").as_posix()),
        lambda path, inside: _plain(inside.as_posix()),
        lambda path, inside: _plain(path.absolute().as_posix()),
        lambda path, inside: ascii(str(path.absolute())),
    ]
    named: dict[int, str] = {}
    for form in forms:
        names = {k: form(*files[k]) for k in range(len(files)) if k not in named}
        count = Counter([*names.values(), *named.values()])
        named |= {k: name for k, name in names.items() if count[name] == 1}
    return [Clip(name=named[k], video=path) for k, (path, _) in enumerate(files)]


def _plain(name: str) -> str:
    """Bring composed characters to one form (macOS writes "é" as two, tables as one).

    Bytes that are no UTF-8 become "�", so that every name can be written to a file.
    """
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", name)


def _join(
    clips: list[Clip], rows: list[Row], table: Path, root: Path, *, partial: bool = False
) -> tuple[list[Clip], list[str]]:
    """Put each row's knowledge on its clip; ``partial`` allows rows about other videos.

    Returns:
        The clips, and the names of the rows that fit no video.
    """
    others: dict[str, set[int]] = {}  # other ways to write a clip's name
    for k, clip in enumerate(clips):
        inside = clip.video.relative_to(root)
        for name in (inside.as_posix(), inside.with_suffix("").as_posix(), inside.name):
            others.setdefault(_plain(name), set()).add(k)
    by_name = {name: min(ks) for name, ks in others.items() if len(ks) == 1}
    by_name |= {clip.name: k for k, clip in enumerate(clips)}
    by_name = {plain_name(name): k for name, k in by_name.items()} | by_name
    zeros = without_zeros((plain_name(row.name) for row in rows), {clip.name for clip in clips})

    def clip_of(row: Row) -> int | None:
        plain = plain_name(row.name)
        return by_name.get(_plain(row.name), by_name.get(zeros.get(plain, plain)))

    fitting = [(row, clip_of(row)) for row in rows]
    missing = [row.name for row, at in fitting if at is None]
    if missing and not (partial and len(missing) < len(rows)):
        raise DataError(
            f"{table}: of {len(rows)} lines {few(missing)} without a video below {root} "
            f"({len(clips)} videos there, e.g. {clips[0].name!r})"
        )
    result = list(clips)
    taken: dict[int, str] = {}
    for row, at in fitting:
        if at is None:
            continue
        if at in taken:
            raise DataError(f"{table}: {taken[at]!r} and {row.name!r} are the same video")
        taken[at] = row.name
        result[at] = replace(
            clips[at],
            audio=_audio(row, table, root),
            subtitle=row.subtitle,
            subtitle_source="file" if row.subtitle else "none",
            labels=row.labels,
            description=row.description,
            split=row.split,
            group=row.group,
        )
    return result, missing


def _audio(row: Row, table: Path, root: Path) -> Path | None:
    """Find a row's sound file below the root or beside the table."""
    if not row.audio:
        return None
    for folder in (root, table.parent):
        if (folder / row.audio).is_file():
            return folder / row.audio
    raise DataError(f"{table}, line {row.line}: no sound file {row.audio!r} below {root}")
