"""What there is in a data set: counts, media facts, problems. Reads headers, not whole files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.media.supervisor import spread
from emolib.media.video import probe
from emolib.progress import track


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """One clip's media, or why they cannot be used.

    Attributes:
        name: The clip.
        split: Its split.
        words: Whether there is a subtitle.
        labels: Number of gold labels; -1 when unlabelled.
        duration_s: In seconds; 0 when not looked at.
        fps: Average frame rate.
        width: Pixels, after rotation.
        height: Pixels, after rotation.
        has_audio: Whether there is an audio track.
        error: The problem, or None.
    """

    name: str
    split: str
    words: bool
    labels: int
    duration_s: float = 0.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    has_audio: bool = False
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def inspect(clips: Sequence[Clip], *, check_media: bool = True) -> list[ClipFacts]:
    """Look at every clip; a broken one is a row with its error.

    Args:
        clips: The clips.
        check_media: Read each file's header; otherwise only what the data set says is told.
    """
    look = partial(_facts, check_media=check_media)
    return list(track(spread(look, clips), "clips", len(clips)))


def _facts(clip: Clip, check_media: bool) -> ClipFacts:
    labels = -1 if clip.labels is None else len(clip.labels)
    facts = ClipFacts(clip.name, clip.split, bool(clip.subtitle), labels)
    if not check_media:
        return facts
    try:
        info = probe(clip.video)
    except MediaError as error:
        return replace(facts, error=str(error))
    return replace(
        facts,
        duration_s=round(info.duration_s, 3),
        fps=round(info.fps, 3),
        width=info.width,
        height=info.height,
        has_audio=info.has_audio,
    )


def overview(clips: Sequence[Clip], facts: Sequence[ClipFacts]) -> dict[str, Any]:
    """Counts for a result file: clips by split, words, labels, audio, durations, problems."""
    good = [f for f in facts if f.error is None]
    labels = Counter(label for clip in clips for label in clip.labels or ())
    seconds = [f.duration_s for f in good if f.duration_s > 0]
    return {
        "clips": len(clips),
        "splits": dict(sorted(Counter(c.split or "(none)" for c in clips).items())),
        "groups": len({c.group for c in clips if c.group}),
        "with_words": sum(f.words for f in facts),
        "with_labels": sum(c.labels is not None for c in clips),
        "label_tokens": sum(labels.values()),
        "different_labels": len(labels),
        "with_audio": sum(f.has_audio for f in good),
        "seconds_total": round(float(np.sum(seconds)), 1),
        "seconds_median": round(float(np.median(seconds)), 2) if seconds else 0.0,
        "sizes": dict(Counter(f"{f.width}x{f.height}" for f in good if f.width).most_common(5)),
        "errors": sum(f.error is not None for f in facts),
    }
