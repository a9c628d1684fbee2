"""CH-SIMS and CH-SIMS v2: sentiment of Chinese film clips. They have no emotion labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from emolib.datasets.clip import Clip
from emolib.datasets.layouts import LANGUAGES, SPLITS
from emolib.datasets.media_index import index_media, stem
from emolib.datasets.sheets import Sheet, chosen_file, clean_text, first_file, number, read_sheet
from emolib.datasets.validation import Level, Reading, check_groups
from emolib.errors import DataError
from emolib.params.schemas import DataParams, as_path

# Clips the authors name. Source: MMSA (2,281), ch-sims-v2 (supervised part, 4,403).
PUBLISHED = {"chsims": 2281, "chsims-v2": 4403}
TABLES = ("meta.csv", "label.csv")
TEXTS = {"chinese": "text", "english": "text_en"}


def read_chsims(params: DataParams) -> Reading[Clip]:
    """Read ``meta.csv`` (or ``label.csv``) and ``Raw/<video_id>/<clip_id>.mp4``.

    A clip is named ``<video_id>_<clip_id>``; its source video is its ``group``, its sentiment
    (label of all modalities together) its ``valence``, and it has no ``labels``. Clip numbers
    that a spreadsheet stripped of their zeros (``1`` for ``0001.mp4``) are found again by
    value. A flat folder ``video/<name>.mp4`` is read as well.

    Cost: one directory listing a source video and one read of the table.

    Raises:
        DataError: no root, no table, or a table that cannot be read.
    """
    root = as_path(params.root)
    if root is None or not root.is_dir():
        raise DataError(f"data.root {params.root!r}: no such folder")
    path = chosen_file(root, params.table) if params.table else first_file(root, TABLES)
    if path is None:
        raise DataError(f"{root}: no {' or '.join(TABLES)}; name the file in data.table")
    reading: Reading[Clip] = Reading(params.kind, root, tables=[path])
    sheet = read_sheet(path)
    videos = _videos(reading, params) if params.media != "none" else None
    words = _words(reading, params)
    _clips(reading, sheet, videos, words, params)
    check_groups(reading)
    published = PUBLISHED[params.kind]
    if not params.table and len(reading.items) != published:
        what = f"clips, where the authors name {published}"
        reading.find("warning", what, (), count=len(reading.items))
    return reading


def _videos(reading: Reading[Clip], params: DataParams) -> dict[str, Path]:
    names = (params.videos,) if params.videos else ("Raw", "video")
    folders = [Path(params.videos).expanduser()] if params.videos else []
    folder = next((f for f in [*folders, *map(reading.root.joinpath, names)] if f.is_dir()), None)
    if folder is None:
        raise DataError(f"{reading.root}: no folder {' or '.join(names)}; name it in data.videos")
    top = folder

    def name(path: Path) -> str:
        return stem(path) if path.parent == top else f"{path.parent.name}_{stem(path)}"

    index = index_media(folder, name=name)
    index.report(reading)
    return index.files


def _words(reading: Reading[Clip], params: DataParams) -> dict[str, str | None]:
    """Read a separate subtitle file, when one is named."""
    if not params.subtitles:
        return {}
    path = chosen_file(reading.root, params.subtitles)
    reading.tables.append(path)
    sheet = read_sheet(path)
    name, text = sheet.column("name"), sheet.column(*LANGUAGES[params.language])
    return {row[name] or "": row[text] for row in sheet.rows}


def _clips(
    reading: Reading[Clip],
    sheet: Sheet,
    videos: dict[str, Path] | None,
    words: Mapping[str, str | None],
    params: DataParams,
) -> None:
    video_id, clip_id, label = map(sheet.column, ("video_id", "clip_id", "label"))
    mode = sheet.column("mode")
    text = next((c for c in (TEXTS[params.language], *TEXTS.values()) if c in sheet.columns), "")
    folder = reading.root / "Raw"
    by_value = _by_value(videos or {})
    seen: set[str] = set()
    stray, blank, zeros, missing, again, wrong, outside, unnamed = ([] for _ in range(8))
    for number_, row in enumerate(sheet.rows, start=2):
        video, clip = row[video_id], row[clip_id]
        if not video or not clip:
            unnamed.append(f"line {number_}")
            continue
        name = f"{video}_{clip}"
        if videos is not None and name not in videos and clip.isdigit():
            alike = by_value.get((video, int(clip)), [])
            if len(alike) == 1:
                zeros.append(f"{name} = {alike[0]}")
                name = alike[0]
        if name in seen:
            again.append(name)
            continue
        seen.add(name)
        split = SPLITS.get((row[mode] or "").lower())
        if split is None:
            wrong.append(f"{name}: {row[mode]!r}")
        sentiment = number(row[label], f"{sheet.path}, {name}, label")
        if sentiment is None or not -1 <= sentiment <= 1:
            outside.append(f"{name}: {row[label]}")
        said, changed = clean_text(words.get(name) or (row[text] if text else None))
        stray += [name] if changed else []
        blank += [name] if said is None else []
        if videos is not None and name not in videos:
            missing.append(name)
            continue
        reading.items.append(
            Clip(
                name=name,
                video=videos[name] if videos is not None else folder / video / f"{clip}.mp4",
                subtitle=said,
                subtitle_source="official" if said else "none",
                split=split or "",
                group=video,
                valence=sentiment,
            )
        )
    at = sheet.path.name
    reading.find("error", f"lines of {at} without video_id or clip_id", unnamed)
    reading.find("error", f"clips given again in {at}", again)
    reading.find("error", f"unknown modes in {at} (train, valid, test)", wrong)
    reading.find("error", "sentiments outside -1 to 1", outside)
    reading.find("note", "clip numbers that had lost their leading zeros", zeros)
    reading.find("note", "texts with a translator's remark in front, stripped", stray)
    reading.find("note", "clips with blank words", blank)
    level: Level = "error" if params.media == "needed" else "warning"
    reading.find(level, "clips without a video", missing)
    orphans = sorted((videos or {}).keys() - seen)
    reading.find("warning", f"videos that no line of {at} is about", orphans)


def _by_value(videos: Mapping[str, Path]) -> Mapping[tuple[str, int], list[str]]:
    """Clip names by source video and clip number as a number."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in videos:
        video, _, clip = name.rpartition("_")
        if video and clip.isdigit():
            found[video, int(clip)].append(name)
    return found
