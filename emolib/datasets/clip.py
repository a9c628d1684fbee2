"""The one record every reader yields and every stage consumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Clip:
    """One video clip: where its media lie and what is known about it. Holds no media.

    Attributes:
        name: Identifier, unique within its data set.
        video: The video file.
        audio: A separate audio file; None means the video's own track, if it has one.
        subtitle: The spoken words, or None when unknown. Blank text is stored as None.
        subtitle_source: Where ``subtitle`` comes from: "official", "file", "asr:<model>" or
            "generated"; or why there is none: "none" (nobody looked), "asr:<model>:silent",
            "no-audio" or "unreadable".
        labels: Gold open-vocabulary emotion words, lower case, or None when unlabelled.
        description: Gold free-text description of the emotional clues, or None.
        split: "train", "val", "test" or "" when the set has no split.
        group: What must not be divided between splits (source video, speaker), or "".
        valence: Gold valence or sentiment on the set's own scale (CH-SIMS: -1 to 1, MER: -5 to
            5; positive is pleasant), or None.
    """

    name: str
    video: Path
    audio: Path | None = None
    subtitle: str | None = None
    subtitle_source: str = "none"
    labels: tuple[str, ...] | None = None
    description: str | None = None
    split: str = ""
    group: str = ""
    valence: float | None = None
