"""The judge and the 0.9 rule: keep images whose two captions agree (paper section 3.1.2, S3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from emolib import prompts
from emolib.engines.base import Engine, Request
from emolib.errors import DataError
from emolib.hashing import key_of
from emolib.inference import Task, ask
from emolib.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Pair:
    """Two captions of one image, and what the judge said.

    Attributes:
        clip: The clip's name.
        index: Which image of the clip.
        image: The stored image's path.
        models: Who wrote the first and the second caption.
        texts: The captions.
        similarity: In [0, 1]; None when the judge's answer holds no such number.
        answer: The judge's words.
        error: Why there is no answer, or None.
    """

    clip: str
    index: int
    image: str
    models: tuple[str, str]
    texts: tuple[str, str]
    similarity: float | None = None
    answer: str = ""
    error: str | None = None


# ASCII classes: in Chinese text a digit stands directly beside a character, which is a \w.
_DECIMAL = re.compile(r"(?<![A-Za-z0-9_.])(?:0?\.\d+|[01]\.\d+)(?![A-Za-z0-9_%]|\.\d)")
# A bare 0 or 1 may count people or number a line: it must be the whole answer or follow a word
# that announces a score.
_WHOLE = re.compile(
    r"^\W*([01])\W*$"
    r"|(?:score|similarity|rating|rate|give|say|is|be|分数|相似度|评分|为|是)[\s*:：=\"'(]*"
    r"(?:of\s+|a\s+)?([01])(?=\s*(?:$|\n|[^\w\s%/.]|\.(?!\d)))",
    re.IGNORECASE,
)
_OTHER = re.compile(r"(?<![A-Za-z0-9_.])\d+(?:\.\d+)?\s*(?:%|/\s*\d+)|(?<![\d.])-\.?\d")
# "between 0 and 1", "0-1" and "out of 1" repeat the question; "1." and "2." at a line's start
# number the captions.
_ECHO = re.compile(
    r"\b0(?:\.0)?\s*(?:-|–|to|and)\s*1(?:\.0)?\b(?!\.\d)|out of 1(?:\.0)?\b(?!\.\d)|^\s*\d\.\s",
    re.IGNORECASE | re.MULTILINE,
)


def parse_similarity(answer: str) -> float | None:
    """Read the judge's score strictly: exactly one number in [0, 1], or nothing.

    Percentages, fractions such as 8/10, numbers above 1, a 0 or 1 that nothing announces as a
    score, and answers with two different scores give None: they are counted as unparsed
    rather than guessed.

    >>> parse_similarity("The similarity score is 0.85.")
    0.85
    >>> parse_similarity("between 0 and 1, I would say 1")
    1.0
    >>> parse_similarity("0.2 for the first, 0.9 for the second") is None
    True
    """
    text = _ECHO.sub(" ", answer)
    if _OTHER.search(text):
        return None
    values = {float(found) for found in _DECIMAL.findall(text)}
    values |= {float(a or b) for a, b in _WHOLE.findall(text)}
    values = {value for value in values if 0 <= value <= 1}
    return values.pop() if len(values) == 1 else None


def make_pairs(captions: Iterable[dict[str, Any]]) -> list[Pair]:
    """Match the captions of each image, every two models once; failed captions have no pair.

    Raises:
        DataError: two captions of one image by one model.
    """
    by_image: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in captions:
        models = by_image.setdefault((row["clip"], row["index"]), {})
        if row["model"] in models:
            raise DataError(f"{row['clip']}#{row['index']}: two captions by {row['model']}")
        models[row["model"]] = row
    pairs = []
    for (clip, index), models in by_image.items():
        good = [row for row in models.values() if not row["error"] and row["text"].strip()]
        for first, second in combinations(good, 2):
            pairs.append(
                Pair(
                    clip=clip,
                    index=index,
                    image=first["path"],
                    models=(first["model"], second["model"]),
                    texts=(first["text"], second["text"]),
                )
            )
    return pairs


def judge(pairs: Sequence[Pair], engine: Engine, ledger: Ledger) -> list[Pair]:
    """Ask the judge for every pair; returns the pairs with similarity, answer and error."""
    tasks = [
        Task(
            id=f"{pair.clip}#{pair.index}@{pair.models[0]}+{pair.models[1]}",
            content={"prompt": _prompt(pair)},
            build=partial(_request, pair),
        )
        for pair in pairs
    ]
    rows = ask(tasks, engine, ledger, f"similarity by {engine.name}")
    return [
        Pair(
            clip=pair.clip,
            index=pair.index,
            image=pair.image,
            models=pair.models,
            texts=pair.texts,
            similarity=None if row["error"] else parse_similarity(row["text"]),
            answer=row["text"],
            error=row["error"],
        )
        for pair, row in zip(pairs, rows.values(), strict=True)
    ]


def _prompt(pair: Pair) -> str:
    return prompts.SIMILARITY.render(first=pair.texts[0], second=pair.texts[1])


def _request(pair: Pair) -> Request:
    return Request(id="", prompt=_prompt(pair))


def keep(
    pairs: Sequence[Pair], *, threshold: float, max_pairs: int, seed: int
) -> list[dict[str, Any]]:
    """Apply the rule: below the threshold both go, otherwise one caption is kept at random.

    Args:
        pairs: Judged pairs.
        threshold: In [0, 1]; exactly at it a pair is kept.
        max_pairs: Keep at most this many, drawn at random; 0 = all.
        seed: Which caption is kept depends on it and on the image alone.

    Returns:
        Rows ready for ``swift sft`` (``messages``, ``images``) with ``provenance``, in the
        pairs' order.
    """
    kept = [p for p in pairs if p.similarity is not None and p.similarity >= threshold]
    if max_pairs and len(kept) > max_pairs:
        chosen = np.random.default_rng(seed).choice(len(kept), size=max_pairs, replace=False)
        kept = [kept[i] for i in sorted(chosen)]
    rows = []
    for pair in kept:
        coin = int(key_of(seed=seed, clip=pair.clip, index=pair.index, models=pair.models), 16) % 2
        rows.append(
            training_row(
                pair.image,
                pair.texts[coin],
                clip=pair.clip,
                index=pair.index,
                caption_by=pair.models[coin],
                similarity=pair.similarity,
            )
        )
    return rows


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


def count_judged(judged: Sequence[Pair], kept: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts for a result file: pairs, errors, answers without a score, kept."""
    scores = [p.similarity for p in judged if p.similarity is not None]
    errors = sum(p.error is not None for p in judged)
    return {
        "pairs": len(judged),
        "errors": errors,
        "unparsed": len(judged) - len(scores) - errors,
        "scored": len(scores),
        "mean_similarity": round(float(np.mean(scores)), 4) if scores else None,
        "kept": len(kept),
    }
