"""Small stand-ins for published data sets: true to their layout, generated throughout.

Videos, pictures, English words, labels and descriptions are the demo world's; names, Chinese
lines and sentiments are made up. The files have the quirks the real ones have, so that a
pipeline which runs on a stand-in runs on the set itself.
"""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.files import write_atomic, write_json
from emolib.params.schemas import DataParams

# Everyday lines of our own; they need not fit what the generated voices say.
CHINESE = (
    "你怎么现在才回来？",
    "太好了，我们终于成功了！",
    "我不知道该怎么跟他说。",
    "别担心，一切都会好的。",
    "这件事我不想再提了。",
    "真的吗？我完全没想到。",
    "你先坐下，慢慢说。",
    "我早就告诉过你了。",
)
CLASSES = ("neutral", "angry", "happy", "sad", "worried", "surprise")
CHINESE_CLASS = {
    "angry": "生气",
    "happy": "高兴",
    "sad": "悲伤",
    "worried": "担忧",
    "surprise": "惊讶",
}
MODES = ("train", "train", "train", "valid", "test")

Row = Sequence[object]


def write_fake(
    kind: str, folder: Path, clips: int = 6, seed: int = 0, world: Path | None = None
) -> Path:
    """Write a stand-in of one of :data:`KINDS` into an empty or new folder.

    Cost: about 0.3 s a clip, most of it the generated video.

    Args:
        kind: Whose layout.
        folder: Where.
        clips: How many.
        seed: Of clips and labels.
        world: Where the generated clips are kept, for further stand-ins of as many; None =
            nowhere.

    Returns:
        The folder, to be given as ``data.root``.

    Raises:
        DataError: unknown kind, fewer than 2 clips, or a folder with something in it.
    """
    if kind not in KINDS:
        raise DataError(f"no stand-in {kind!r}; choose from {sorted(KINDS)}")
    if clips < 2:
        raise DataError(f"{clips} clips: a stand-in needs at least 2")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: there is something already; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    from emolib.datasets.demo import open_demo

    with tempfile.TemporaryDirectory() as scratch:
        generated = DataParams(
            kind="demo", clips=clips, seed=seed, root=str(world or Path(scratch) / "demo")
        )
        KINDS[kind](folder, open_demo(generated, Path(scratch)), np.random.default_rng(seed))
    return folder


def _names(clips: Sequence[Clip]) -> list[str]:
    return [f"sample_{7 * k:08d}" for k in range(len(clips))]


def _write(path: Path, header: Sequence[str], rows: Iterable[Row]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def _videos(folder: Path, clips: Sequence[Clip], names: Sequence[str]) -> None:
    for clip, name in zip(clips, names, strict=True):
        target = folder / f"{name}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip.video, target)


def _chinese(k: int) -> str:
    """A line; every seventh clip has none, as 217 of MER's 5,030."""
    return "" if k % 7 == 3 else CHINESE[k % len(CHINESE)]


def _english(clip: Clip, k: int) -> str:
    return "" if k % 7 == 3 else clip.subtitle or ""


def _class(k: int) -> str:
    return CLASSES[k % len(CLASSES)]


def _openset(folder: Path, clips: Sequence[Clip]) -> None:
    rows = [(n, repr(list(c.labels or ()))) for n, c in zip(_names(clips), clips, strict=True)]
    _write(folder / "check-openset.csv", ["name", "openset"], rows)


def _labelled(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    names = _names(clips)
    _videos(folder / "video-labeled", clips, names)
    rows = [(name, _class(k)) for k, name in enumerate(names)]
    _write(folder / "label-disdim.csv", ["name", "discrete"], rows)
    lines = [(name, _chinese(k)) for k, name in enumerate(names)]
    _write(folder / "label-transcription.csv", ["name", "chinese"], lines)


def _unlabelled(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    names = _names(clips)
    _videos(folder / "video-unlabeled-with-test2noise", clips, names)
    lines = [(name, _chinese(k)) for k, name in enumerate(names)]
    _write(folder / "transcription-merge.csv", ["name", "chinese"], lines)


def _ov(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    """The labelled set with one clip the open-vocabulary part does not have, as published."""
    _labelled(folder, clips, rng)
    (folder / "label-disdim.csv").unlink()
    _openset(folder, clips[:-1])


def _emer_v1(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    names = _names(clips)
    _videos(folder / "video", clips, names)
    header = ["names", "emotions", "subtitles", "reasons"]
    classes = [CLASSES[1 + k % 5] for k in range(len(clips))]  # it has no neutral clip
    english = [
        (name, emotion, _english(clip, k), clip.description)
        for k, (name, emotion, clip) in enumerate(zip(names, classes, clips, strict=True))
    ]
    _write(folder / "gt-eng.csv", header, english)
    chinese = [
        (
            name,
            CHINESE_CLASS[emotion],
            _chinese(k),
            f"在视频中，他的情感状态为{CHINESE_CLASS[emotion]}。",
        )
        for k, (name, emotion) in enumerate(zip(names, classes, strict=True))
    ]
    _write(folder / "gt-chi.csv", header, chinese)


def _emer_v2(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    names = _names(clips)
    _videos(folder / "video", clips, names)
    rows = [
        (
            name,
            "在视频中，画面显示一个人物。",
            ("Input: " if k % 4 == 0 else "") + str(clip.description),
        )
        for k, (name, clip) in enumerate(zip(names, clips, strict=True))
    ]
    _write(folder / "final-EMER-reason.csv", ["name", "chinese", "english"], rows)
    _subtitles(folder, clips)
    _openset(folder, clips)


def _subtitles(folder: Path, clips: Sequence[Clip]) -> None:
    rows = [
        (name, _chinese(k), _english(clip, k))
        for k, (name, clip) in enumerate(zip(_names(clips), clips, strict=True))
    ]
    _write(folder / "subtitle_chieng.csv", ["name", "chinese", "english"], rows)


def _mer2025(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    names = _names(clips)
    _videos(folder / "video", clips, names)
    _subtitles(folder, clips)
    third = max(1, len(clips) // 3)
    valences = [round(float(v), 2) for v in rng.uniform(-5, 5, len(clips))]
    rows = [(name, _class(k), valences[k]) for k, name in enumerate(names)]
    _write(folder / "track1_train_disdim.csv", ["name", "discrete", "valence"], rows[third:])
    pairs = list(zip(names, clips, strict=True))
    openset = [(name, repr(list(clip.labels or ()))) for name, clip in pairs]
    _write(folder / "track2_train_human.csv", ["name", "openset"], openset[third:])
    reasons = [(name, clip.description) for name, clip in pairs]
    _write(folder / "track3_train.csv", ["name", "reason"], reasons[third:])
    _write(folder / "track_all_candidates.csv", ["name"], [(name,) for name in names[:third]])


def _mer2026(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    """Human labels are parted by commas, generated ones stand in brackets without quotes."""
    _mer2025(folder, clips, rng)
    for old in ("track1_train_disdim", "track3_train", "track_all_candidates"):
        (folder / f"{old}.csv").unlink()
    names = _names(clips)
    words = [", ".join(clip.labels or ()) for clip in clips]
    human = [(name, word.replace(" ", "")) for name, word in zip(names, words, strict=True)]
    _write(folder / "track2_train_human.csv", ["name", "openset"], human)
    made = [(name, f"[{word}]") for name, word in zip(names, words, strict=True)]
    _write(folder / "track2_train_mercaptionplus.csv", ["name", "openset"], made)
    classes = [(name, _class(k)) for k, name in enumerate(names)]
    _write(folder / "track1_train.csv", ["name", "discrete"], classes)
    _write(folder / "track1_track2_candidate.csv", ["name"], [(name,) for name in names])


def _sims(folder: Path, clips: Sequence[Clip], rng: np.random.Generator, v2: bool) -> None:
    """Two or three clips a source video; v2 has English texts and numbers of five digits."""
    video_ids = [
        f"{'aqgy3' if v2 and k % 2 else 'video'}_{k // 3 + 1:04d}" for k in range(len(clips))
    ]
    clip_ids = [f"{k % 3:05d}" if v2 else f"{k % 3 + 1:04d}" for k in range(len(clips))]
    _videos(folder / "Raw", clips, [f"{v}/{c}" for v, c in zip(video_ids, clip_ids, strict=True)])
    values = np.round(rng.uniform(-1, 1, (len(clips), 4)) * 5) / 5 + 0.0
    header = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "mode"]
    rows: list[list[object]] = []
    for k, clip in enumerate(clips):
        row = [video_ids[k], clip_ids[k], CHINESE[k % len(CHINESE)], *values[k].tolist()]
        if v2:
            row.insert(3, ("The input: " if k == 1 else "") + str(clip.subtitle))
        rows.append([*row, MODES[k % len(MODES)]])
    if v2:
        header.insert(3, "text_en")
    _write(folder / ("meta.csv" if v2 else "label.csv"), header, rows)


def _chsims(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    _sims(folder, clips, rng, v2=False)


def _chsims_v2(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    _sims(folder, clips, rng, v2=True)


def _minigpt4(folder: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    from PIL import Image

    from emolib.media.video import sample_frames

    (folder / "image").mkdir()
    annotations = []
    for k, clip in enumerate(clips):
        frame = sample_frames(clip.video, 1, rule="segments", seed=k, name=clip.name).frames[0]
        Image.fromarray(frame.image).save(folder / "image" / f"{k + 2}.jpg", quality=90)
        annotations.append({"image_id": str(k + 2), "caption": clip.description})
    write_json(folder / "filter_cap.json", {"annotations": annotations})


Writer = Callable[[Path, Sequence[Clip], np.random.Generator], None]
KINDS: dict[str, Writer] = {
    "mer2024-labelled": _labelled,
    "mer2024-unlabelled": _unlabelled,
    "mer2024-ov": _ov,
    "mer2025": _mer2025,
    "mer2026": _mer2026,
    "emer-v1": _emer_v1,
    "emer-v2": _emer_v2,
    "chsims": _chsims,
    "chsims-v2": _chsims_v2,
    "minigpt4": _minigpt4,
}
