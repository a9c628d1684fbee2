"""Co-judgment by a language model: it sees the candidates and who named them, and chooses.

The judge's failures are results, not accidents to be smoothed over: an answer without any
candidate in it is an error row with no labels, which scores 0, like every other system's
failure. Nothing falls back to another strategy behind the user's back; who wants that fills
error rows from one of :mod:`emolib.fusion`'s and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from emolib import prompts
from emolib.engines.base import Engine, Request
from emolib.fusion import Candidate, GroupOf, candidates
from emolib.fusion.candidates import Systems, clip_names
from emolib.inference import Task, ask
from emolib.labels import normalise, parse_labels
from emolib.ledger import Ledger
from emolib.predict import Prediction


def co_judge(
    preds: Systems,
    engine: Engine,
    ledger: Ledger,
    *,
    system: str = "LLM co-judge",
    subtitles: Mapping[str, str] | None = None,
    grouping: object | None = None,
    desc: str = "",
) -> list[Prediction]:
    """Have a model choose among what several systems named.

    Synonyms are shown as one candidate with all their systems, most named first. A clip
    without any candidate is not asked about and has no labels. What the answer holds besides
    candidates is dropped and counted in ``info["invented"]``; a synonym of a candidate counts
    as that candidate. ``[]`` means that the judge keeps nothing, which is an answer.

    Args:
        preds: System name -> clip name -> labels, all over the same clips.
        engine: The judge.
        ledger: Finds and keeps its answers.
        system: Name in tables.
        subtitles: Clip name -> what is said; "unknown" where there is none.
        grouping: Which words are synonyms; the lexicon by default.
        desc: Name on the progress bar; the system's when empty.

    Returns:
        One prediction a clip, in the first system's order; ``info`` holds ``candidates``
        (label -> systems), ``invented`` and ``asked``.

    Raises:
        ScoreError: no system, or the systems do not cover the same clips.
        EngineError: the engine as a whole is unusable.
    """
    names = clip_names(list(preds.values()))
    group_of = GroupOf(grouping)
    found = {name: candidates(name, preds, group_of) for name in names}
    tasks = [
        _task(name, shown, (subtitles or {}).get(name, ""))
        for name, shown in found.items()
        if shown
    ]
    rows = ask(tasks, engine, ledger, desc or system)
    return [_prediction(n, system, engine, rows.get(n), found[n], group_of) for n in names]


def _shown(found: Mapping[str, Candidate]) -> dict[str, list[str]]:
    """Label -> systems, most systems first, else as they came."""
    ordered = sorted(found.values(), key=lambda c: -len(c.named))
    return {c.label(): list(c.sources) for c in ordered}


def _task(name: str, found: Mapping[str, Candidate], subtitle: str) -> Task:
    listed = "; ".join(f"{label} ({', '.join(who)})" for label, who in _shown(found).items())
    prompt = prompts.CO_JUDGE.render(text=subtitle.strip() or "unknown", candidates=listed)
    return Task(id=name, content={"prompt": prompt}, build=partial(Request, id="", prompt=prompt))


def _prediction(
    name: str,
    system: str,
    engine: Engine,
    row: Mapping[str, Any] | None,
    found: Mapping[str, Candidate],
    group_of: GroupOf,
) -> Prediction:
    asked = row is not None
    row = row or {"text": "[]", "error": None, "finish_reason": "", "seconds": 0.0}
    parsed = parse_labels(row["text"], cut=row["finish_reason"] == "length")
    said = dict.fromkeys(group_of(x) or f"={x}" for x in parsed.labels if normalise(x))
    labels = tuple(found[group].label() for group in said if group in found)
    error = row["error"]
    # An empty list is a verdict, an empty text or a list of other words is none.
    refused = parsed.status == "empty" and re.search(r"\[\s*\]", row["text"]) is not None
    if error is None and not labels and not refused:
        error = (
            f"the judge's answer {row['text'].strip()[:80]!r} names no candidate of {list(found)}"
        )
    return Prediction(
        name=name,
        system=system,
        labels=() if error else labels,
        description=row["text"] if asked else "",
        parse=parsed.status,
        status="error" if error else "ok",
        error=error,
        prompt=prompts.CO_JUDGE.sha,
        model=dict(engine.identity),
        finish_reason=row["finish_reason"],
        seconds=row["seconds"],
        info={
            "candidates": _shown(found),
            "invented": sum(group not in found for group in said),
            "asked": asked,
        },
    )
