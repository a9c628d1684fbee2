"""Groups made by a language model: asked in sorted order, checked, and asked only once.

What can go wrong with a model as judge is an error here, never a number: an empty answer, an
answer that is not a list of lists, a label lost, invented or put into two groups.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np

from emolib.errors import DataError, ScoreError
from emolib.files import read_json, write_json
from emolib.hashing import key_of
from emolib.prompts import Prompt
from emolib.scoring.cached import CachedGrouping
from emolib.scoring.encode import LabelSets
from emolib.scoring.grouping import Grouped

GROUPING = Prompt(
    "grouping",
    "You know the words people use for emotions. Put the emotion words below into groups: words "
    "go into one group exactly when they name the same emotion, nearly the same meaning and "
    "strength aside; every other word is a group of its own. Use every word once, spelled as "
    "given, and add none. Answer with a JSON list of lists and nothing else.\n"
    'Example. Words: ["annoyed", "calm", "cheerful", "irritated", "joyful", "relaxed"]\n'
    '[["annoyed", "irritated"], ["calm", "relaxed"], ["cheerful", "joyful"]]\n'
    "Words: {words}",
    "ours; the task is the MER2024-OV script's (MERTools 89120b7, toolkit/utils/chatgpt.py)",
)


_BATCH = 64


class Judge(Protocol):
    """A language model reduced to what a grouping needs.

    Attributes:
        identity: Everything an answer depends on besides the prompt, as plain JSON values.
    """

    identity: dict[str, object]

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """Answer every prompt, in order.

        Raises:
            EngineError: a prompt could not be answered.
        """
        ...


class LlmGrouping:
    """Groups the labels of each clip by a language model.

    Args:
        judge: The model, e.g. :class:`emolib.judging.EngineJudge`.
        cache: Folder of answers, keyed by model, prompt and labels; None = this object only.
        votes: Answers per label set. The first sees the labels sorted, the others in fixed
            other orders; the answer that agrees best with the others is used.

    Attributes:
        agreement: Share of label pairs on which two votes agree, mean over all sets of two or
            more labels grouped so far; None with one vote.
    """

    name = "llm"
    shared = False

    def __init__(self, judge: Judge, cache: Path | None = None, votes: int = 1) -> None:
        if votes < 1:
            raise ScoreError(f"votes={votes}: need at least one answer")
        if not hasattr(judge, "ask"):
            raise ScoreError(
                "grouping 'llm' needs a judge: wrap an engine as emolib.judging.EngineJudge(engine)"
            )
        self._judge, self._cache, self._votes = judge, cache, votes
        self._memory: dict[str, list[list[str]]] = {}
        self._agreements: dict[tuple[str, ...], float] = {}
        self.version = key_of(judge=dict(judge.identity), prompt=GROUPING.sha, votes=votes)[:12]

    @property
    def agreement(self) -> float | None:
        """See the class."""
        if self._votes == 1 or not self._agreements:
            return None
        return float(np.mean(list(self._agreements.values())))

    def partitions(self, label_sets: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Group several label sets; what is not cached is asked in one stream.

        Raises:
            ScoreError: an answer is empty, broken or not a partition of the labels.
            EngineError: the model did not answer.
        """
        wanted = [tuple(sorted({label.lower() for label in labels})) for labels in label_sets]
        jobs = {
            self._key(labels, vote): (labels, vote)
            for labels in wanted
            if len(labels) > 1
            for vote in range(self._votes)
        }
        missing = {key: job for key, job in jobs.items() if not self._cached(key, job[0])}
        todo = list(missing.items())
        for start in range(0, len(todo), _BATCH):  # each batch is kept before the next is asked
            self._ask(todo[start : start + _BATCH])
        return [self._decide(labels) for labels in wanted]

    def _ask(self, jobs: Sequence[tuple[str, tuple[tuple[str, ...], int]]]) -> None:
        orders = [_order(labels, vote) for _, (labels, vote) in jobs]
        answers = self._judge.ask(
            [GROUPING.render(words=json.dumps(order, ensure_ascii=False)) for order in orders]
        )
        for (key, (labels, _)), order, answer in zip(jobs, orders, answers, strict=True):
            self._memory[key] = parse_partition(answer, labels)
            if self._cache is not None:
                content = {"labels": order, "answer": answer, "judge": dict(self._judge.identity)}
                write_json(self._file(key), content)

    def assign(
        self, clips: Sequence[str], gold: LabelSets, pred: LabelSets, vocab: Sequence[str]
    ) -> Grouped:
        """See :meth:`~emolib.scoring.grouping.Grouping.assign`; groups gold and pred together."""
        sets = [
            [vocab[c] for side in (gold, pred) for c in side.codes[slice(*side.offsets[i : i + 2])]]
            for i in range(len(clips))
        ]
        return self._store(clips, sets).assign(clips, gold, pred, vocab)

    def freeze(self, *systems: Mapping[str, Sequence[str]]) -> CachedGrouping:
        """Group the union of several label files once, for comparisons on shared partitions.

        Args:
            systems: Gold and any number of predictions, clip name -> labels.

        Returns:
            A "cached" grouping that knows every label of all of them.
        """
        clips = list(dict.fromkeys(name for system in systems for name in system))
        sets = [[x for system in systems for x in system.get(name, ())] for name in clips]
        return self._store(clips, sets)

    def _store(self, clips: Sequence[str], sets: Sequence[Sequence[str]]) -> CachedGrouping:
        found = zip(clips, self.partitions(sets), strict=True)
        answers = {clip: groups for clip, groups in found if groups}
        version = f"llm-{self.version}-{key_of(groups=answers)[:12]}"
        return CachedGrouping(answers, version=version, source="llm")

    def _key(self, labels: tuple[str, ...], vote: int) -> str:
        return key_of(
            judge=dict(self._judge.identity), prompt=GROUPING.sha, labels=list(labels), vote=vote
        )

    def _file(self, key: str) -> Path:
        assert self._cache is not None
        return self._cache / key[:2] / f"{key}.json"

    def _cached(self, key: str, labels: tuple[str, ...]) -> bool:
        if key in self._memory:
            return True
        if self._cache is None or not self._file(key).is_file():
            return False
        try:
            self._memory[key] = parse_partition(read_json(self._file(key))["answer"], labels)
        except (ScoreError, DataError, KeyError, TypeError) as error:
            raise ScoreError(
                f"{self._file(key)}: a stored answer is broken ({error}); delete this file to have "
                "it asked again"
            ) from None
        return True

    def _decide(self, labels: tuple[str, ...]) -> list[list[str]]:
        """The vote that agrees best with the others; the earliest of equals."""
        if len(labels) < 2:
            return [[label] for label in labels]
        votes = [self._memory[self._key(labels, vote)] for vote in range(self._votes)]
        if len(votes) == 1:
            return votes[0]
        same = np.array([_pairs(vote, labels) for vote in votes])
        agree = (same[:, None] == same[None]).mean(axis=-1)
        others = (agree.sum(axis=1) - 1) / (len(votes) - 1)
        self._agreements[labels] = float(others.mean())
        return votes[int(np.argmax(np.round(others, 12)))]


def parse_partition(answer: str, labels: Sequence[str]) -> list[list[str]]:
    """Read a list of lists out of an answer and check that it is a partition of ``labels``.

    Raises:
        ScoreError: empty, no list of lists, or labels lost, invented or repeated.
    """
    shown = answer.strip()[:200]
    match = re.search(r"\[\s*\[.*\]\s*\]", answer, re.DOTALL)
    if match is None:
        raise ScoreError(f"the judge's answer {shown!r} for {list(labels)} is not a list of lists")
    groups: object
    try:
        groups = json.loads(match.group())
    except ValueError:
        try:
            groups = ast.literal_eval(match.group())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ScoreError(f"the judge's answer {shown!r} for {list(labels)} is broken") from None
    if not isinstance(groups, list) or not all(isinstance(g, list) for g in groups):
        raise ScoreError(f"the judge's answer {shown!r} for {list(labels)} is not a list of lists")
    clean = [[str(label).strip().lower() for label in group] for group in groups if group]
    flat = [label for group in clean for label in group]
    if sorted(flat) != sorted(labels):
        lost, new = sorted(set(labels) - set(flat)), sorted(set(flat) - set(labels))
        twice = sorted({label for label in flat if flat.count(label) > 1})
        raise ScoreError(
            f"the judge's answer {shown!r} is no partition of {list(labels)}: lost {lost}, "
            f"invented {new}, repeated {twice}"
        )
    return clean


def _order(labels: tuple[str, ...], vote: int) -> list[str]:
    """Sorted for the first vote, a fixed shuffle for each further one."""
    if vote == 0:
        return list(labels)
    return [labels[i] for i in np.random.default_rng(vote).permutation(len(labels))]


def _pairs(groups: Sequence[Sequence[str]], labels: Sequence[str]) -> list[bool]:
    number = {label: i for i, group in enumerate(groups) for label in group}
    return [number[a] == number[b] for a, b in combinations(labels, 2)]
