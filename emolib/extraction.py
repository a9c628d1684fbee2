"""Emotion labels out of a free description: without a model, or by any LLM (system S6).

AffectGPT writes sentences ("... it can be inferred that he feels hurt and angry."), in which a
parser of lists finds nothing. Without a model, the words of the emotion lexicon are looked for
in the sentences that conclude; an LLM is asked with the published prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from emolib import prompts
from emolib.engines.base import Engine, Request
from emolib.inference import Task, ask
from emolib.labels import normalise, parse_labels
from emolib.ledger import Ledger
from emolib.predict import Prediction
from emolib.scoring import lexicon

_LONGEST = 4  # words of the longest entry looked for
_SENTENCE = re.compile(r"(?<=[.!?。！？])[\"'”’)]*\s+")
_QUOTED = re.compile(r"[\"“][^\"“”]*[\"”]")
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|overall|in (?:summary|conclusion|short|general)|to sum up|"
    r"all in all|altogether|taken together|based on|combin\w+|conclu\w+|infer\w*|suggest\w*|"
    r"indicat\w+|reflect\w*|express\w*|convey\w*|reveal\w*|emotions?|emotional|feel\w*|mood)\b",
    re.IGNORECASE,
)
# Words of the lexicon that in prose mostly mean something else ("subtitle content", "emotional
# state", "it is likely"); read off the 332 descriptions of EMER.
_PROSE_WORDS = """
    emotional emotion emotions content likely unlikely determine decision certain
    actions action question questions care strong support supports believes believe asking asks
    showing show tone mood state attitude possible clear deep negative positive
    expectation expectations thinking thoughts interest real true open like suggesting discussing
    wants opening low engaged
"""
_PROSE = frozenset(_PROSE_WORDS.split())
_NEGATION_WORDS = "not no never without neither nor hardly lacks lack rather than"
_NEGATION = frozenset(_NEGATION_WORDS.split())


def from_text(text: str) -> tuple[tuple[str, ...], str]:
    """Labels of an answer: its list if it ends in one, else the emotion words of its conclusion.

    The last sentence decides if it names an emotion; otherwise the last that concludes or speaks
    of feelings, otherwise every sentence. Quoted speech and negated words do not count. Cost:
    some 0.2 ms a sentence.

    Returns:
        (labels, how): "lexicon" where words of sentences were taken, else the status of
        :func:`emolib.labels.parse_labels`.
    """
    parsed = parse_labels(text)
    if parsed.labels or parsed.status == "empty":
        return parsed.labels, parsed.status
    sentences = [s for s in _SENTENCE.split(_QUOTED.sub(" ", text)) if s.strip()]
    concluding = [s for s in sentences if _CONCLUDES.search(s)]
    for chosen in (sentences[-1:], concluding[-1:], sentences):
        labels = dict.fromkeys(label for sentence in chosen for label in _words(sentence))
        if labels:
            return tuple(labels), "lexicon"
    return (), parsed.status


def _words(sentence: str) -> list[str]:
    """Lexicon entries in a sentence, the longest match first, negated ones left out."""
    words = [word.lower().replace("’", "'") for word in _WORD.findall(sentence)]
    found, at = [], 0
    while at < len(words):
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            phrase = normalise(" ".join(words[at : at + length]))
            if len(phrase.split()) == length and _known(phrase):
                before = words[max(0, at - 3) : at]
                turn = max((i for i, w in enumerate(before) if w in ("but", "yet")), default=-1)
                if not _NEGATION.intersection(before[turn + 1 :]):
                    found.append(phrase)
                at += length
                break
        else:
            at += 1
    return found


def _known(phrase: str) -> bool:
    """Whether the lexicon lists a phrase, or a word or the word it is a form of."""
    if phrase in _PROSE or phrase.endswith((" emotion", " emotions", " mood", " tone")):
        return False
    if phrase in lexicon.table():
        return True
    return " " not in phrase and lexicon.find(phrase).rule == "form"


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
    parsed = parse_labels(row["text"])
    summary = {"text": row["text"], "prompt": prompts.EXTRACT.sha, "model": dict(engine.identity)}
    return replace(
        prediction,
        system=system,
        labels=parsed.labels,
        parse=parsed.status,
        status="error" if row["error"] else "ok",
        error=row["error"],
        seconds=prediction.seconds + row["seconds"],
        info={**prediction.info, "summary": summary},
    )
