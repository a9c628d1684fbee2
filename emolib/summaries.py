"""Emotion labels out of a free description: without a model, or by any LLM (system S6).

AffectGPT writes sentences ("... it can be inferred that he feels hurt and angry."), in which a
parser of lists finds nothing. Without a model, :mod:`emolib.extraction` reads what they state; an
LLM is asked with the published prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from emolib import prompts
from emolib.engines.base import Engine, Request
from emolib.extraction import emotion_words, extract_labels
from emolib.inference import Task, ask
from emolib.labels import chinese_words, parse_labels
from emolib.ledger import Ledger
from emolib.predict import Prediction
from emolib.scoring import lexicon

_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def from_text(text: str) -> tuple[tuple[str, ...], str]:
    """Read the labels of an answer: its list if it is one, else what its sentences state.

    A list is what :func:`emolib.labels.parse_labels` reads as one; sentences, English or Chinese,
    are read by :func:`emolib.extraction.extract_labels`. Labels are English (:func:`in_english`).

    Returns:
        (labels, how): "lexicon" where words of sentences were taken, else the status of
        :func:`emolib.labels.parse_labels`.
    """
    parsed = parse_labels(text)
    labels = in_english(parsed.labels)
    # Short sentences ("他说") and the headings of a list of reasons ("1. Body language: ...") pass
    # for lists: without brackets, half of the words must be known.
    known = sum(lexicon.find(label).rule != "unknown" for label in labels)
    listed = known * 2 >= len(labels) if labels else False
    if parsed.status == "empty" or listed or (labels and re.search(r"(?<![A-Za-z])[\[【]", text)):
        return labels, parsed.status
    labels = extract_labels(text).labels
    return labels, "lexicon" if labels else parsed.status


def in_english(labels: Sequence[str]) -> tuple[str, ...]:
    """Chinese labels as the English ones of the project's table; others stay as they are.

    A Chinese label that is not in the table gives the words in it that are ("有点难过"), or, when
    there are none, stays Chinese: it then is a group of its own, and wrong.

    >>> in_english(["高兴", "有点难过", "calm"])
    ('happy', 'sad', 'calm')
    """
    found: dict[str, None] = {}
    for label in labels:
        if not _CHINESE.search(label):
            words: Sequence[str] = (label,)
        elif label in chinese_words():
            words = (chinese_words()[label],)
        else:
            words = emotion_words(label, "zh").labels or (label,)
        found |= dict.fromkeys(words)
    return tuple(found)


def summarise(
    predictions: Sequence[Prediction], engine: Engine, ledger: Ledger, *, system: str
) -> list[Prediction]:
    """Ask an LLM for the labels of descriptions (S6), with the published prompt.

    Args:
        predictions: With a description each; one with an error keeps it.
        engine: The LLM.
        ledger: Finds and keeps the answers.
        system: The new predictions' name in tables.

    Returns:
        The predictions with the LLM's labels; ``info["summary"]`` holds its answer.
    """
    tasks = [_task(p) for p in predictions if p.status == "ok" and p.description.strip()]
    rows = ask(tasks, engine, ledger, system)
    return [_summarised(p, rows.get(p.name), engine, system) for p in predictions]


def _task(prediction: Prediction) -> Task:
    prompt = prompts.EXTRACT.render(reason=prediction.description)
    build = partial(Request, id="", prompt=prompt)
    return Task(id=prediction.name, content={"prompt": prompt}, build=build)


def _summarised(
    prediction: Prediction, row: Mapping[str, Any] | None, engine: Engine, system: str
) -> Prediction:
    if row is None:
        return replace(prediction, system=system, labels=())
    parsed = parse_labels(row["text"], cut=row["finish_reason"] == "length")
    summary = {"text": row["text"], "prompt": prompts.EXTRACT.sha, "model": dict(engine.identity)}
    return replace(
        prediction,
        system=system,
        labels=in_english(parsed.labels),
        parse=parsed.status,
        status="error" if row["error"] else "ok",
        error=row["error"],
        seconds=prediction.seconds + row["seconds"],
        info={**prediction.info, "summary": summary},
    )
