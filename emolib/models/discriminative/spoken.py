"""Six-class probabilities from transcripts, by a text model that learned from other clips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.features.table import FeatureTable
from emolib.features.words import MARKS, count_table, text_marks
from emolib.models.discriminative import measures
from emolib.models.discriminative.classes import CLASSES, classes_of_clips
from emolib.models.discriminative.corpus import corpus_of
from emolib.models.discriminative.protocol import fit
from emolib.params.discriminative import ClassifierParams

_INNER = 0.15  # of the training clips, on which regularization and temperature are chosen


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a text model says of some clips.

    Attributes:
        transcripts: Clip -> transcript, of the clips that have one.
        probabilities: Clip -> class -> probability, of the same clips.
        trained_on: Number of clips it learned from: none of them is predicted, and none has the
            transcript of one that is.
        left_out: Clips with a class that were not learned from.
    """

    transcripts: dict[str, str]
    probabilities: dict[str, dict[str, float]]
    trained_on: int
    left_out: int


def classes_from_transcripts(
    known: Sequence[Clip], names: Collection[str], seed: int = 0
) -> Spoken:
    """Learn classes from transcripts, and predict clips that were not learned from.

    Regularized logistic regression over hashed character and word n-grams. Deterministic; some
    seconds for 5,000 clips.

    Args:
        known: Clips with a class (a single label) and a transcript; those to predict may be among
            them, for their transcripts: their classes are not used.
        names: Clips to predict.
        seed: Seed of the split on which regularization is chosen.

    Raises:
        DataError: no clip to predict has a transcript, or fewer than two classes are left.
    """
    texts = {clip.name: (clip.subtitle or "").strip() for clip in known}
    wanted = set(names)
    spoken = {name: texts[name] for name in names if texts.get(name)}
    if not spoken:
        raise DataError(f"none of {len(wanted)} clips has a transcript in the set of {len(known)}")
    said = set(spoken.values())
    classes = classes_of_clips([clip for clip in known if clip.name not in wanted])
    usable = [
        clip
        for clip in known
        if clip.name in classes and texts[clip.name] and texts[clip.name] not in said
    ]
    if len({classes[clip.name] for clip in usable}) < 2:
        raise DataError(f"{len(usable)} other clips with a transcript have fewer than two classes")
    rows = [*usable, *(clip for clip in known if clip.name in spoken)]
    corpus = corpus_of(rows, _tables([texts[clip.name] for clip in rows]), classes, by_group=False)
    params = ClassifierParams(kind="linear", strengths=(0.5, 1.5, 5.0))
    model = fit(corpus, np.arange(len(usable)), params, _INNER, seed)
    index = np.arange(len(usable), len(rows))
    table = measures.probabilities(model.logits(corpus, index), model.temperature)
    found = {
        rows[row].name: dict(zip(CLASSES, p, strict=True))
        for row, p in zip(index.tolist(), table.tolist(), strict=True)
    }
    ordered = {name: found[name] for name in spoken}
    return Spoken(spoken, ordered, len(usable), len(classes) - len(usable))


def _tables(texts: Sequence[str]) -> list[FeatureTable]:
    marks = np.array([text_marks(text) for text in texts], dtype=np.float32)
    blank = np.array([not text for text in texts])
    return [
        count_table("n-grams", texts),
        FeatureTable("marks", "text", marks, None, blank, {}, {"marks": list(MARKS)}),
    ]
