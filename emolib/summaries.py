"""Emotion labels out of a free description: without a model, or by any LLM (system S6).

AffectGPT writes sentences ("... it can be inferred that he feels hurt and angry."), in which a
parser of lists finds nothing. Without a model, emotion words are looked for in the sentences that
conclude (:mod:`emolib.extraction`); an LLM is asked with the published prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from emolib import prompts
from emolib.engines.base import Engine, Request
from emolib.extraction import extract_labels
from emolib.inference import Task, ask
from emolib.labels import chinese_words, parse_labels
from emolib.ledger import Ledger
from emolib.models.affectgpt.prompts import stated_labels
from emolib.predict import Prediction

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|(?<=[。！？])[\"'”’」』）)]*\s*|\n+")
_CONCLUDES = re.compile(
    r"因此|所以|综上|总之|总的来说|总体|整体|综合|结合|推测|推断|可以看出|表明|说明|暗示|反映|"
    r"情感|情绪|心情|感到|感觉|"
    r"\b(?:therefore|thus|hence|overall|in (?:summary|conclusion|short|general)|to sum up|"
    r"all in all|altogether|taken together|based on|combin\w+|conclu\w+|infer\w*|suggest\w*|"
    r"indicat\w+|reflect\w*|express\w*|convey\w*|reveal\w*|emotions?|emotional|feel\w*|mood)\b",
    re.IGNORECASE,
)


def from_text(text: str) -> tuple[tuple[str, ...], str]:
    """Labels of an answer: its list if it is one, else the emotion words of its conclusion.

    A list is what :func:`emolib.labels.parse_labels` reads as one, and the answer in which
    AffectGPT of 2025 names labels without describing anything.

    English and Chinese; labels are English (:func:`in_english`).

    The last sentence decides if it names an emotion; otherwise the last that concludes or speaks
    of feelings, otherwise every sentence. Quoted speech and negated words do not count.

    Returns:
        (labels, how): "lexicon" where words of sentences were taken, else the status of
        :func:`emolib.labels.parse_labels`.
    """
    stated = stated_labels(text)
    parsed = parse_labels(text if stated is None else f"[{stated}]")
    labels = in_english(parsed.labels)
    # A short Chinese sentence passes for a list ("他说"): without brackets, a word must be known.
    listed = not all(map(_CHINESE.search, labels)) or (labels and re.search(r"[\[【]", parsed.raw))
    if listed or parsed.status == "empty":
        return labels, parsed.status
    sentences = [s for s in _SENTENCE.split(text) if s.strip()]
    concluding = [s for s in sentences if _CONCLUDES.search(s)]
    for chosen in (sentences[-1:], concluding[-1:], sentences):
        if labels := extract_labels(" ".join(chosen)).labels:
            return labels, "lexicon"
    return (), parsed.status


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
            words = extract_labels(label, "zh").labels or (label,)
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
