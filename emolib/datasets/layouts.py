"""How MER2024, MER2025, MER2026 and EMER are laid out, and what their columns are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NAMES = ("name", "names", "filename", "filenames")
LABELS = ("openset", "labels", "discrete", "emo", "emotion", "emotions")
VALENCES = ("valence", "val")
DESCRIPTIONS = ("reason", "reasons", "description")
LANGUAGES = {"chinese": ("chinese", "english"), "english": ("english", "chinese")}
# The six classes of MER, as EMER v1's Chinese file writes them.
CHINESE_CLASSES = {
    "中性": "neutral",
    "生气": "angry",
    "高兴": "happy",
    "悲伤": "sad",
    "担忧": "worried",
    "惊讶": "surprise",
}
# Corpora of label-6way.npz: one for training, the others were the challenge's tests.
SPLITS = {
    "train": "train",
    "train_corpus": "train",
    "val": "val",
    "valid": "val",
    "val_corpus": "val",
    "test": "test",
    "test_corpus": "test",
    **{f"test{k}_corpus": "test" for k in (1, 2, 3)},
}
_SPEECH = (
    "label-transcription.csv",
    "transcription-engchi-polish.csv",
    "transcription-merge.csv",
    "subtitle_chieng.csv",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a published set keeps what; of several names the first that exists is used.

    Attributes:
        videos: Folders of videos, below the root.
        labels: Label or description files; empty = none by itself, see ``DataParams.table``.
        words: Subtitle files.
        more: Files that may add labels to what ``labels`` says.
        clips: Number of clips the publisher names; 0 = not known.
        split: Split of clips whose file does not say.
        tests: Files of another set's test clips that may be among these.
        part: Whether the folder holds more videos than the set has clips, as published.
    """

    videos: tuple[str, ...]
    labels: tuple[str, ...]
    words: tuple[str, ...]
    more: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    clips: int = 0
    split: str = ""
    part: bool = False


_LABELLED = ("video-labeled", "video")
_OPENSET = ("check-openset.csv", "ov_store/check-openset.csv")
# Source: MERTools (MER2024/ov_store, MER2024/README, MER2025, MER2026), AffectGPT (EMER).
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "mer2024-labelled": Layout(
            videos=_LABELLED,
            labels=("label-disdim.csv", "label-6way.npz", "label-6way.csv"),
            words=_SPEECH,
            tests=_OPENSET,
            clips=5030,
            split="train",
        ),
        "mer2024-unlabelled": Layout(
            videos=("video-unlabeled-with-test2noise", "video-unlabeled", "video"),
            labels=(),
            words=("transcription-merge.csv", *_SPEECH[:2], _SPEECH[3]),
            clips=115_595,
        ),
        "mer2024-ov": Layout(
            videos=_LABELLED, labels=_OPENSET, words=_SPEECH, clips=332, split="test", part=True
        ),
        "emer-v1": Layout(
            videos=_LABELLED, labels=("gt-{language}.csv",), words=(), clips=100, part=True
        ),
        "emer-v2": Layout(
            videos=_LABELLED,
            labels=("final-EMER-reason.csv",),
            words=("subtitle_chieng.csv", *_SPEECH[:3]),
            more=_OPENSET,
            clips=332,
            part=True,
        ),
        "mer2025": Layout(("video",), (), ("subtitle_chieng.csv",), clips=132_171),
        "mer2026": Layout(("video",), (), ("subtitle_chieng.csv",)),
    }
)
