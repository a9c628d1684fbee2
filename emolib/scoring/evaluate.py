"""Scoring one system: parsed labels (``score``) or texts (``score_texts``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Literal

import numpy as np

from emolib.errors import ScoreError
from emolib.labels import Mode
from emolib.scoring.columns import CHUNK, parse_column
from emolib.scoring.encode import LabelSets, encode
from emolib.scoring.grouping import Grouping
from emolib.scoring.result import Part, Score, ScoreData, build_score, measure


def score(
    gold: Mapping[str, Sequence[str]],
    pred: Mapping[str, Sequence[str]],
    grouping: Grouping,
    *,
    missing: Literal["error", "drop", "zero"] = "error",
    extra: Literal["error", "drop"] = "error",
    empty_gold: Literal["error", "drop"] = "error",
    resamples: int = 10_000,
    seed: int = 0,
) -> Score:
    """Score one system's labels against the gold labels.

    Labels are compared lower-cased and otherwise as given: parse texts first with
    :func:`emolib.labels.parse_labels`. Time and memory grow linearly with the clips; a
    million clips take about a second with a grouping that is shared by all clips.

    Args:
        gold: Clip name -> reference labels.
        pred: Clip name -> predicted labels; an empty list scores 0.
        grouping: Which labels are the same, see :func:`emolib.scoring.grouping.open_grouping`.
        missing: Gold clips without a prediction: "error", "drop" from the means, or "zero".
        extra: Predictions without gold: "error" or "drop".
        empty_gold: Clips without gold labels, for which recall is undefined: "error" or "drop".
        resamples: Bootstrap resamples; 0 = no intervals.
        seed: Seed of the resampling.

    Raises:
        ScoreError: names do not match, no clip is left, labels are not lists of strings, or
            the grouping cannot group a clip.
    """
    clips, dropped = match_names(gold, pred, missing, extra)
    clips = _with_gold(clips, [len(gold[name]) for name in clips], empty_gold, dropped)
    nothing: tuple[str, ...] = ()
    encoded = encode(map(gold.__getitem__, clips), [pred.get(name, nothing) for name in clips])
    part, data = measure(clips, *encoded, grouping)
    return build_score(clips, [part], lambda: data, grouping, dropped, resamples, seed)


def score_texts(
    gold: Mapping[str, object],
    pred: Mapping[str, object],
    grouping: Grouping,
    *,
    mode: Mode = "tolerant",
    missing: Literal["error", "drop", "zero"] = "error",
    extra: Literal["error", "drop"] = "error",
    empty_gold: Literal["error", "drop"] = "error",
    resamples: int = 10_000,
    seed: int = 0,
) -> Score:
    """Parse and score label texts; :func:`score` on parsed labels gives the same numbers.

    Works through the clips in blocks on all processors: a million clips take seconds and
    little memory beyond the texts themselves.

    Args:
        gold: Clip name -> text, e.g. ``"['happy', 'sad']"``.
        pred: Clip name -> text.
        grouping: See :func:`score`.
        mode: Parser, see :func:`emolib.labels.parse_labels`.
        missing: See :func:`score`.
        extra: See :func:`score`.
        empty_gold: See :func:`score`.
        resamples: See :func:`score`.
        seed: See :func:`score`.

    Raises:
        ScoreError: see :func:`score`; also a text on which the official parser crashes.
    """
    clips, dropped = match_names(gold, pred, missing, extra)
    starts = range(0, len(clips), CHUNK)
    cells = [
        list(side.values() if list(side) == clips else map(side.get, clips, repeat("")))
        for side in (gold, pred)
    ]

    def work(start: int) -> tuple[Part, int]:
        names = clips[start : start + CHUNK]
        columns = [parse_column(side[start : start + CHUNK], mode) for side in cells]
        for column, title in zip(columns, ("gold", "predicted"), strict=True):
            if column.unparsed and mode == "mer2024":
                raise ScoreError(
                    f"{title} labels of {names[column.unparsed[0]]!r} have no '[', on which the "
                    "official parser crashes: write ['a', 'b'], or parse tolerantly"
                )
        texts = columns[0].lengths > 0
        kept = names
        if not texts.all():
            kept = _with_gold(names, columns[0].lengths.tolist(), empty_gold, {})
        index: dict[str, int] = {}
        sets: list[LabelSets] = []
        for column in columns:
            numbers = [index.setdefault(label, len(index)) for label in column.vocab]
            codes = np.array(numbers, np.int64)[column.codes]
            lengths = column.lengths
            if len(kept) < len(names):
                codes, lengths = codes[np.repeat(texts, lengths)], lengths[texts]
            sets.append(LabelSets(codes, np.concatenate([[0], np.cumsum(lengths)])))
        return measure(kept, sets[0], sets[1], list(index), grouping)[0], len(columns[1].unparsed)

    if len(starts) < 2:
        done = [work(start) for start in starts]
    else:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            done = list(pool.map(work, starts))
    parts = [part for part, _ in done]
    scored = [name for part in parts for name in part.clips]

    def whole() -> ScoreData:
        sides = [
            parse_column([side.get(name, "") for name in scored], mode) for side in (gold, pred)
        ]
        return measure(scored, *encode(*(side.lists() for side in sides)), grouping)[1]

    if lost := len(clips) - len(scored):
        dropped["empty_gold_dropped"] = lost
    if unparsed := sum(count for _, count in done):
        dropped["unparsed_predictions"] = unparsed
    return build_score(scored, parts, whole, grouping, dropped, resamples, seed)


def _with_gold(
    clips: list[str], lengths: list[int], empty_gold: str, dropped: dict[str, int]
) -> list[str]:
    """Clips that have gold labels; the others are an error, or are counted in ``dropped``."""
    if empty_gold not in ("error", "drop"):
        raise ValueError(f"empty_gold={empty_gold!r}: choose error or drop")
    kept = [name for name, length in zip(clips, lengths, strict=True) if length]
    if (lost := len(clips) - len(kept)) and empty_gold == "error":
        first = next(name for name, length in zip(clips, lengths, strict=True) if not length)
        raise ScoreError(
            f"{lost} clips have no gold label (first: {first!r}), so recall is undefined: fix "
            "the gold file or drop them by name (--empty-gold drop)"
        )
    if lost:
        dropped["empty_gold_dropped"] = lost
    return kept


def match_names(
    gold: Mapping[str, object],
    pred: Mapping[str, object],
    missing: str,
    extra: str,
) -> tuple[list[str], dict[str, int]]:
    """Clips to score, in the gold's order, and what was done about the others.

    Raises:
        ScoreError: a name is missing or extra and the option says "error".
    """
    if missing not in ("error", "drop", "zero") or extra not in ("error", "drop"):
        raise ValueError(f"missing={missing!r}, extra={extra!r}: see the docstring for choices")
    dropped: dict[str, int] = {}
    clips = list(gold)
    if clips == list(pred) or gold.keys() == pred.keys():  # equal order is the quick case
        return clips, dropped
    lost = [name for name in clips if name not in pred]
    odd = [name for name in pred if name not in gold]
    if lost and missing == "error":
        raise ScoreError(
            f"{len(lost)} of {len(clips)} gold clips have no prediction (first: {lost[0]!r}; "
            f"{_example('the predictions', odd)}): "
            "predict them, or say so: --missing zero scores them 0, --missing drop leaves them out"
        )
    if odd and extra == "error":
        raise ScoreError(
            f"{len(odd)} predictions have no gold clip (first: {odd[0]!r}; "
            f"{_example('the gold labels', lost)}): check that both files "
            "are of the same set, or say so with --extra drop"
        )
    if lost:
        dropped["missing_zeroed" if missing == "zero" else "missing_dropped"] = len(lost)
    if odd:
        dropped["extra_dropped"] = len(odd)
    return clips if missing == "zero" else [name for name in clips if name in pred], dropped


def _example(side: str, names: Sequence[str]) -> str:
    """A name of the other side that fits nothing either: often the same clip, written otherwise."""
    return f"{side} have {names[0]!r}" if names else f"{side} have no other name"
