"""The MER2024-OV score as the official script computes it: one clip after the other.

The yardstick of tests and benchmarks, faults included; use :func:`emolib.scoring.score`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from emolib.scoring.cached import parse_groups, representatives


def parse_list(text: str) -> list[str]:
    """Official label parser.

    Raises:
        IndexError: the text has no ``[``.

    Source: MERTools 89120b7, ``MER2024/toolkit/utils/functions.py:507`` (behaviour).
    """
    if text == "":
        return []
    inside = text.split("[")[1].split("]")[0]
    return [item for item in re.split("['\"]", inside) if item.strip() not in ("", ",")]


def score_clip(gold: str, pred: str, answer: str) -> tuple[float, float]:
    """Accuracy and recall of one clip.

    Raises:
        ZeroDivisionError: gold is empty, the prediction is not.

    Source: MERTools 89120b7, ``MER2024/main-ov.py:74-99`` (behaviour).
    """
    groups = representatives(parse_groups(answer))
    g = {groups.get(x, x) for x in (item.lower() for item in parse_list(gold))}
    p = {groups.get(x, x) for x in (item.lower() for item in parse_list(pred))}
    if not p:
        return 0.0, 0.0
    return len(g & p) / len(p), len(g & p) / len(g)


def score_files(
    gold: Mapping[str, str], pred: Mapping[str, str], answers: Mapping[str, str]
) -> tuple[float, float, int]:
    """Accuracy, recall and clips scored; clips without an answer silently do not count.

    Raises:
        KeyError: an answer's clip is missing from gold or pred.
        ZeroDivisionError: no answers, or an empty gold list.
    """
    scores = [score_clip(gold[name], pred[name], answer) for name, answer in answers.items()]
    accuracy, recall = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    return accuracy, recall, len(scores)
