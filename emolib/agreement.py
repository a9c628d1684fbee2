"""What else says that two captions agree: the emotion words in them, model by model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emolib.extraction import emotion_words
from emolib.filtering import Pair
from emolib.fusion.candidates import GroupOf


def shared_words(pairs: Sequence[Pair]) -> list[float | None]:
    """Share of emotion words two captions have in common, by table and without a model.

    Words are read by :func:`emolib.extraction.emotion_words` and grouped into synonyms by the
    lexicon; the share is the groups in both captions over the groups in either.

    Returns:
        One number in [0, 1] a pair; None when neither caption names an emotion. Linear in the
        text.
    """
    group_of = GroupOf()
    shares: list[float | None] = []
    for pair in pairs:
        first, second = (group_of.set_of(emotion_words(text).labels) for text in pair.texts)
        either = first | second
        shares.append(len(first & second) / len(either) if either else None)
    return shares


def by_models(pairs: Sequence[Pair], threshold: float) -> list[dict[str, Any]]:
    """One row for every two captioners: pairs, mean similarity, share kept, words in common.

    ``rank correlation`` is Spearman's, between the judge and the words in common, over pairs
    that have both: near 0 the judge looks at something else than the emotions named. None with
    fewer than three such pairs or no variation.
    """
    rows = []
    shares = dict(zip((pair.id for pair in pairs), shared_words(pairs), strict=True))
    for models in dict.fromkeys(pair.models for pair in pairs):
        own = [pair for pair in pairs if pair.models == models]
        scores = [pair.similarity for pair in own if pair.similarity is not None]
        words = [share for pair in own if (share := shares[pair.id]) is not None]
        rows.append(
            {
                "captions": " + ".join(models),
                "pairs": len(own),
                "mean similarity": _mean(scores),
                "share kept": _mean([float(score >= threshold) for score in scores]),
                "words in common": _mean(words),
                "rank correlation": _rank_correlation(
                    [
                        (pair.similarity, share)
                        for pair in own
                        if pair.similarity is not None and (share := shares[pair.id]) is not None
                    ]
                ),
            }
        )
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _rank_correlation(points: Sequence[tuple[float, float]]) -> float | None:
    from scipy.stats import spearmanr

    if len(points) < 3 or any(len(set(side)) < 2 for side in zip(*points, strict=True)):
        return None
    return round(float(spearmanr(*zip(*points, strict=True)).statistic), 4)
