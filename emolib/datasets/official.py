"""MER2024, MER2025, MER2026 and EMER as their publishers lay them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emolib.datasets.clip import Clip
from emolib.datasets.layouts import (
    CHINESE_CLASSES,
    DESCRIPTIONS,
    LABELS,
    LANGUAGES,
    LAYOUTS,
    NAMES,
    SPLITS,
    VALENCES,
    Layout,
)
from emolib.datasets.media_index import AUDIO_SUFFIXES, index_media
from emolib.datasets.sheets import (
    Sheet,
    chosen_file,
    clean_text,
    first_file,
    number,
    read_sheet,
)
from emolib.datasets.table import read_labels
from emolib.datasets.validation import Level, Reading
from emolib.errors import DataError
from emolib.files import plain_name
from emolib.params.schemas import DataParams, as_path


@dataclass(slots=True)
class _Entry:
    """What the tables say of one clip."""

    labels: tuple[str, ...] | None = None
    description: str | None = None
    subtitle: str | None = None
    valence: float | None = None
    split: str = ""
    said: bool = False


def read_official(params: DataParams) -> Reading[Clip]:
    """Read one of the :mod:`emolib.datasets.layouts`, with the quirks of the files people have.

    Columns are found by name (``name`` or ``names``; ``openset``, ``discrete`` or ``emotions``;
    ``reason`` or ``reasons``; ``chinese``, ``english`` or ``subtitles``), text left behind by a
    translating model is stripped, -10 is no valence, names may carry a video suffix.

    Cost: one directory listing and one read of each table; no media opened.

    Returns:
        Clips in the order of the label file, or of the videos where there is none, and the
        findings.

    Raises:
        DataError: no root, no label file, or a table that cannot be read.
    """
    layout = LAYOUTS[params.kind]
    root = as_path(params.root)
    if root is None or not root.is_dir():
        raise DataError(f"data.root {params.root!r}: no such folder")
    reading: Reading[Clip] = Reading(params.kind, root)
    entries: dict[str, _Entry] = {}
    main = _main_table(params, layout, root)
    if main:
        _read_main(reading, entries, main, params)
        if not entries:
            raise DataError(f"{main}: no clips in it")
        if more := first_file(root, layout.more):
            _read_labels(reading, entries, more)
        if tests := first_file(root, layout.tests):
            names = {name for name, _ in _rows(reading, read_sheet(tests))}
            what = f"clips that {tests.name} tests on: not to be trained on for that test"
            reading.find("warning", what, [name for name in entries if name in names])
    words = chosen_file(root, params.subtitles) if params.subtitles else None
    if words := words or first_file(root, layout.words):
        _read_words(reading, entries, words, params.language, known=main is not None)
    elif layout.words:
        reading.find("warning", f"no subtitle file ({', '.join(layout.words)})", (), count=1)
    _join_media(reading, entries, layout, params, listed=main is not None)
    clips = len(reading.items)
    if layout.clips and not params.table and clips != layout.clips:
        what = f"clips, where the publisher names {layout.clips}"
        reading.find("warning", what, (), count=clips)
    return reading


def _main_table(params: DataParams, layout: Layout, root: Path) -> Path | None:
    if params.table:
        return chosen_file(root, params.table)
    language = {"chinese": "chi", "english": "eng"}[params.language]
    names = [name.format(language=language) for name in layout.labels]
    found = first_file(root, names)
    if names and found is None:
        raise DataError(f"{root}: no {' or '.join(names)}; name the file in data.table")
    return found


def _read_main(
    reading: Reading[Clip], entries: dict[str, _Entry], path: Path, params: DataParams
) -> None:
    """Read labels, descriptions, words and splits, whichever the columns hold."""
    sheet = read_sheet(path)
    reading.tables.append(path)
    if sheet.has("a1", "a2"):
        raise DataError(f"{path}: holds preferences between two descriptions, not clips' labels")
    described = params.kind == "emer-v2"
    texts = [*DESCRIPTIONS, *(LANGUAGES[params.language] if described else ())]
    words = ["subtitles", "subtitle", *(() if described else LANGUAGES[params.language])]
    labels, valence, reason, subtitle, split = (
        next((c for c in some if c in sheet.columns), None)
        for some in (LABELS, VALENCES, texts, words, ("split", "mode"))
    )
    if described and reason is None:
        raise DataError(f"{path}: no column 'english' or 'chinese'; it has {sheet.columns}")
    stray, blank, wrong, unlabelled = [], [], [], []
    unreadable: list[str] = []
    for name, row in _rows(reading, sheet):
        entry = entries.setdefault(name, _Entry())
        if labels:
            entry.labels = _labels(row[labels], unreadable)
            if entry.labels is None:
                unlabelled.append(name)
        if valence:
            entry.valence = number(row[valence], f"{path}, {name}, {valence}")
        if reason:
            entry.description, changed = clean_text(row[reason])
            stray += [name] if changed else []
            blank += [name] if entry.description is None else []
        if subtitle:
            entry.subtitle, _ = clean_text(row[subtitle])
            entry.said = True
        if split and (word := row[split]):
            entry.split = SPLITS.get(word.lower(), "")
            wrong += [f"{name}: {word!r}"] if not entry.split else []
    reading.find("warning", f"clips of {path.name} without a label", unlabelled)
    reading.find("error", f"cells of {path.name} that are no list of labels", unreadable)
    reading.find("warning", f"clips of {path.name} without a description", blank)
    reading.find("note", "descriptions with a translator's 'Input:' in front, stripped", stray)
    reading.find("error", f"unknown splits in {path.name}", wrong)


def _read_labels(reading: Reading[Clip], entries: dict[str, _Entry], path: Path) -> None:
    """Add the labels of another file to clips that have none."""
    sheet = read_sheet(path)
    reading.tables.append(path)
    column = sheet.column(*LABELS)
    extra: list[str] = []
    unreadable: list[str] = []
    for name, row in _rows(reading, sheet):
        if name not in entries:
            extra.append(name)
        elif entries[name].labels is None:
            entries[name].labels = _labels(row[column], unreadable)
    reading.find("error", f"cells of {path.name} that are no list of labels", unreadable)
    missing = [name for name, entry in entries.items() if entry.labels is None]
    reading.find("note", f"clips of {path.name} that are not in the set", extra)
    reading.find("warning", f"clips {path.name} has no labels for", missing)


def _read_words(
    reading: Reading[Clip],
    entries: dict[str, _Entry],
    path: Path,
    language: str,
    *,
    known: bool,
) -> None:
    """Join the official subtitles; ``known`` means that the set's clips are listed already."""
    sheet = read_sheet(path)
    reading.tables.append(path)
    columns = [c for c in LANGUAGES[language] if c in sheet.columns]
    columns = columns or [sheet.column("chinese", "english", "subtitles", "subtitle", "text")]
    stray, extra = [], 0
    for name, row in _rows(reading, sheet):
        if known and name not in entries:
            extra += 1
            continue
        entry = entries.setdefault(name, _Entry())
        text, changed = clean_text(next((row[c] for c in columns if row[c]), None))
        entry.subtitle = entry.subtitle or text
        entry.said = True
        stray += [name] if changed else []
    unsaid = [name for name, entry in entries.items() if not entry.said]
    reading.find("note", f"lines of {path.name} about other clips", (), count=extra)
    reading.find("note", "subtitles with a translator's remark in front, stripped", stray)
    reading.find("warning", f"clips {path.name} does not know", unsaid)


def _rows(reading: Reading[Clip], sheet: Sheet) -> list[tuple[str, dict[str, str | None]]]:
    """Give each clip's line once; the same again is a warning, a contradiction an error."""
    column = sheet.column(*NAMES)
    found: dict[str, dict[str, str | None]] = {}
    same: list[str] = []
    other: list[str] = []
    unnamed = 0
    for row in sheet.rows:
        written = row[column]
        if written is None:
            unnamed += 1
            continue
        name = plain_name(written)
        if name in found:
            alike = {**found[name], column: None} == {**row, column: None}
            (same if alike else other).append(name)
        else:
            found[name] = row
    reading.find("error", f"lines of {sheet.path.name} without a name", (), count=unnamed)
    reading.find("warning", f"clips given again in {sheet.path.name}, alike", same)
    reading.find("error", f"clips given again in {sheet.path.name}, differently", other)
    return list(found.items())


def _labels(cell: str | None, unreadable: list[str]) -> tuple[str, ...] | None:
    """Labels of a cell; one that is no list of labels is noted."""
    try:
        words = read_labels(cell) if cell else None
    except ValueError:
        unreadable.append(str(cell)[:60])
        return None
    return tuple(CHINESE_CLASSES.get(word, word) for word in words) if words else None


def _join_media(
    reading: Reading[Clip],
    entries: dict[str, _Entry],
    layout: Layout,
    params: DataParams,
    *,
    listed: bool,
) -> None:
    """Make clips of entries and videos; what does not fit becomes a finding."""
    root = reading.root
    blank = [name for name, entry in entries.items() if entry.said and entry.subtitle is None]
    reading.find("note", "clips with blank words", blank)
    folder = _video_folder(params, layout, root)
    sounds: Mapping[str, Path] = {}
    if params.media == "none":
        reading.find("note", "clips taken without their videos (data.media: none)", entries)
        videos: Mapping[str, Path] = {name: folder / f"{name}.mp4" for name in entries}
    else:
        index = index_media(folder)
        index.report(reading)
        videos = index.files
        if (root / "audio").is_dir():
            sounds = index_media(root / "audio", AUDIO_SUFFIXES).files
    names = list(entries) if listed or params.media == "none" else sorted(videos)
    if listed:
        missing = [name for name in names if name not in videos]
        orphans = sorted(videos.keys() - entries.keys())
        level: Level = "note" if layout.part or params.table else "warning"
        reading.find(level, f"videos of {folder.name} that no line is about", orphans)
    else:
        missing = sorted(entries.keys() - videos.keys())
        unsaid = [name for name in names if name not in entries] if reading.tables else []
        reading.find("warning", "videos without a line of words", unsaid)
    needed = params.media == "needed" and listed
    reading.find(
        "error" if needed else "warning", f"clips without a video in {folder.name}", missing
    )
    for name in names:
        if name in videos:
            entry = entries.get(name) or _Entry()
            reading.items.append(
                Clip(
                    name=name,
                    video=videos[name],
                    audio=sounds.get(name),
                    subtitle=entry.subtitle,
                    subtitle_source="official" if entry.subtitle else "none",
                    labels=entry.labels,
                    description=entry.description,
                    split=entry.split or layout.split,
                    valence=entry.valence,
                )
            )


def _video_folder(params: DataParams, layout: Layout, root: Path) -> Path:
    names = (params.videos,) if params.videos else layout.videos
    for folder in [*map(Path, names[:1] if params.videos else ()), *(root / n for n in names)]:
        if folder.expanduser().is_dir():
            return folder.expanduser()
    if params.media == "none":
        return root / names[0]
    raise DataError(
        f"{root}: no folder {' or '.join(names)}; name it in data.videos (or say "
        "data.media: none where only words and labels are wanted)"
    )
