"""The 0.9 rule: keep images whose captions agree, one caption each (paper section 3.1.2, S3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emolib import prompts
from emolib.filtering import Pair
from emolib.hashing import key_of


def keep(
    pairs: Sequence[Pair], *, threshold: float, max_pairs: int, seed: int
) -> list[dict[str, Any]]:
    """Apply the rule: below the threshold both go, otherwise one caption is kept at random.

    With more than two models an image may have several pairs that agree: one of them is drawn,
    so that no image is trained on twice.

    Args:
        pairs: Judged pairs.
        threshold: In [0, 1]; exactly at it a pair is kept.
        max_pairs: Keep at most this many, drawn at random; 0 = all.
        seed: Which caption is kept depends on it and on the image alone.

    Returns:
        Rows ready for ``swift sft`` (``messages``, ``images``) with ``provenance``, in the
        images' order.
    """
    agreed: dict[tuple[str, int], list[Pair]] = {}
    for pair in pairs:
        if pair.similarity is not None and pair.similarity >= threshold:
            agreed.setdefault((pair.clip, pair.index), []).append(pair)
    kept = [
        found[_draw(len(found), seed=seed, clip=clip, index=index, among="pairs")]
        for (clip, index), found in agreed.items()
    ]
    if max_pairs and len(kept) > max_pairs:
        chosen = np.random.default_rng(seed).choice(len(kept), size=max_pairs, replace=False)
        kept = [kept[i] for i in sorted(chosen)]
    rows = []
    for pair in kept:
        coin = _draw(2, seed=seed, clip=pair.clip, index=pair.index, models=pair.models)
        rows.append(
            training_row(
                pair.image,
                pair.texts[coin],
                clip=pair.clip,
                index=pair.index,
                image_sha=pair.sha,
                caption_by=pair.models[coin],
                agrees_with=pair.models[1 - coin],
                similarity=pair.similarity,
                judge=pair.judge,
                threshold=threshold,
                seed=seed,
                prompt=prompts.CAPTION.sha,
            )
        )
    return rows


def _draw(sides: int, **what: object) -> int:
    return int(key_of(**what), 16) % sides


def training_row(image: str, caption: str, **provenance: object) -> dict[str, Any]:
    """One image-caption pair as ms-swift reads it, with where it came from."""
    return {
        "messages": [
            {"role": "user", "content": f"<image>{prompts.CAPTION.template}"},
            {"role": "assistant", "content": prompts.plain(caption)},
        ],
        "images": [image],
        "provenance": provenance,
    }


def keep_curve(pairs: Sequence[Pair], thresholds: Sequence[float]) -> list[dict[str, float]]:
    """How many pairs each threshold keeps: ``threshold``, ``kept``, ``rate`` of all pairs."""
    scores = np.array([p.similarity for p in pairs if p.similarity is not None], dtype=float)
    return [
        {
            "threshold": float(t),
            "kept": int((scores >= t).sum()),
            "rate": float((scores >= t).sum() / max(1, len(pairs))),
        }
        for t in thresholds
    ]


def count_judged(
    judged: Sequence[Pair], kept: Sequence[Mapping[str, Any]], *, threshold: float, wanted: int
) -> dict[str, Any]:
    """Counts for a result file: pairs, errors, answers without a score, kept, order check.

    Args:
        judged: Pairs with the judge's answers.
        kept: What :func:`keep` returned.
        threshold: The rule's.
        wanted: How many were wanted at most (``max_pairs``); 0 = all.
    """
    scores = [p.similarity for p in judged if p.similarity is not None]
    errors = sum(p.error is not None for p in judged)
    return {
        "pairs": len(judged),
        "errors": errors,
        "unparsed": len(judged) - len(scores) - errors,
        "scored": len(scores),
        "images": len({(p.clip, p.index) for p in judged}),
        "mean_similarity": round(float(np.mean(scores)), 4) if scores else None,
        "kept": len(kept),
        "short of max_pairs by": max(0, wanted - len(kept)),
        **order_check(judged, threshold),
    }


def order_check(judged: Sequence[Pair], threshold: float) -> dict[str, Any]:
    """How far the judge's answer depends on which caption stands first.

    Returns:
        ``both orders``: pairs scored in both; ``order gap``: mean absolute difference; ``order
        flips``: pairs that one order would keep and the other drop. Empty when only one order
        was asked.
    """
    asked = [p.orders for p in judged if len(p.orders) == 2]
    if not asked:
        return {}
    both = [(a, b) for a, b in asked if a is not None and b is not None]
    return {
        "both orders": len(both),
        "order gap": round(float(np.mean([abs(a - b) for a, b in both])), 4) if both else None,
        "order flips": sum((a >= threshold) != (b >= threshold) for a, b in both),
    }
