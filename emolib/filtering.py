"""The judge tells how similar two captions of one image are (paper section 3.1.2, S3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np

from emolib import prompts
from emolib.engines.base import Engine, Reply, Request
from emolib.errors import DataError, EngineError
from emolib.inference import Task, ask
from emolib.ledger import Ledger, Row
from emolib.similarity import expected_similarity, parse_similarity, yes_no_similarity

Scoring = Literal["text", "expected", "yes-no"]
ALTERNATIVES = 10  # tokens beside the written one; servers allow 20 at most, many only 5 to 10


@dataclass(frozen=True, slots=True)
class Pair:
    """Two captions of one image, and what the judge said.

    Attributes:
        clip: The clip's name.
        index: Which image of the clip.
        image: The stored image's path.
        models: Who wrote the first and the second caption.
        texts: The captions.
        similarity: In [0, 1], the mean over the orders asked; None when any of the judge's
            answers holds no such number.
        answer: The judge's words about the captions in this order.
        error: Why there is no answer, or None.
        orders: The similarity for (first, second) and, if asked, for (second, first).
        judge: Who judged, by name.
        sha: The image's content.
    """

    clip: str
    index: int
    image: str
    models: tuple[str, str]
    texts: tuple[str, str]
    similarity: float | None = None
    answer: str = ""
    error: str | None = None
    orders: tuple[float | None, ...] = ()
    judge: str = ""
    sha: str = ""

    @property
    def id(self) -> str:
        """Unique name, e.g. "clip#0@qwen+cogvlm"."""
        return f"{self.clip}#{self.index}@{self.models[0]}+{self.models[1]}"


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
                    sha=first.get("sha", ""),
                )
            )
    return pairs


def judge_tasks(
    pairs: Sequence[Pair], *, scoring: Scoring = "text", both_orders: bool = False
) -> list[Task]:
    """The judge's questions, for :func:`emolib.inference.ask` or ``answers``.

    Args:
        pairs: The pairs.
        scoring: See :func:`judge`.
        both_orders: Ask about each pair twice, the captions swapped the second time.

    Returns:
        One or two tasks a pair, in the pairs' order.
    """
    tasks = []
    for pair in pairs:
        for order in (pair.texts, pair.texts[::-1])[: 1 + both_orders]:
            template = prompts.SIMILAR if scoring == "yes-no" else prompts.SIMILARITY
            prompt = template.render(first=order[0], second=order[1])
            content = {"prompt": prompt} | ({} if scoring == "text" else {"scoring": scoring})
            tasks.append(
                Task(
                    id=pair.id if order is pair.texts else f"{pair.id}/swapped",
                    content=content,
                    build=partial(_request, prompt, scoring),
                    read=None if scoring == "text" else partial(_weigh, scoring),
                )
            )
    return tasks


def judged_pair(pair: Pair, rows: Sequence[Row]) -> Pair:
    """A pair with what the judge's one or two ledger rows say."""
    scores = tuple(_score(row) for row in rows)
    known = [score for score in scores if score is not None]
    return replace(
        pair,
        similarity=float(np.mean(known)) if len(known) == len(scores) else None,
        answer=rows[0]["text"],
        error=next((row["error"] for row in rows if row["error"]), None),
        orders=scores,
        judge=rows[0]["model"],
    )


def judge(
    pairs: Sequence[Pair],
    engine: Engine,
    ledger: Ledger,
    *,
    scoring: Scoring = "text",
    both_orders: bool = False,
) -> list[Pair]:
    """Ask the judge for every pair; returns the pairs with similarity, answer and error.

    Args:
        pairs: The pairs.
        engine: The judge.
        ledger: Finds and keeps its answers.
        scoring: "text" reads the number in the answer (paper); "expected" takes the mean of the
            numbers it might have written (:func:`emolib.similarity.expected_similarity`);
            "yes-no" asks whether the emotions are similar and takes the probability of "yes".
        both_orders: Ask about each pair twice, the captions swapped the second time; the
            similarity is the mean of both.

    Raises:
        EngineError: the engine tells no token probabilities and ``scoring`` needs them.
    """
    tasks = judge_tasks(pairs, scoring=scoring, both_orders=both_orders)
    rows = list(ask(tasks, engine, ledger, f"similarity by {engine.name}").values())
    each = 1 + both_orders
    return [judged_pair(p, rows[i * each : (i + 1) * each]) for i, p in enumerate(pairs)]


def _request(prompt: str, scoring: Scoring) -> Request:
    return Request(id="", prompt=prompt, alternatives=0 if scoring == "text" else ALTERNATIVES)


def _weigh(scoring: Scoring, reply: Reply) -> dict[str, Any]:
    """The similarity out of a reply's token probabilities, as the ledger keeps it."""
    if reply.error:
        return {}
    if not reply.tokens:
        raise EngineError(
            f"scoring: {scoring} needs token probabilities, and this engine told none: use "
            "scoring: text, or serve the judge with log probabilities enabled"
        )
    yes_no = scoring == "yes-no"
    found = yes_no_similarity(reply.tokens) if yes_no else None
    found = found if yes_no else expected_similarity(reply.text, reply.tokens)
    if found is None:
        return {"similarity": None}
    return {"similarity": round(found.value, 6), "mass": round(found.mass, 6)}


def _score(row: Row) -> float | None:
    if row["error"]:
        return None
    if "similarity" in row["info"]:
        weighed: float | None = row["info"]["similarity"]
        return weighed
    return parse_similarity(row["text"])
