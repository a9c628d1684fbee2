"""What training clips teach about groups and sources: counts, smoothed when they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emolib.fusion.candidates import Labels
from emolib.fusion.votes import Votes
from emolib.labels import normalise

# A rate seen n times is mixed with this many imaginary cases of its base rate.
PRIOR_CASES = 5.0


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds, of probabilities kept inside [0.001, 0.999]."""
    p = np.clip(p, 1e-3, 1 - 1e-3)
    return np.log(p / (1 - p))


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Counts over training clips, in one view. A vote counts as its share, in [0, 1].

    Attributes:
        n: Clips.
        groups: Groups that were named.
        gold_groups: Groups that are in gold.
        gold: float64 [gold groups], clips whose gold has each.
        named: float64 [sources, groups], votes for each.
        joint: float64 [sources, groups, gold groups], votes for the first where gold has the
            second.
        confidence: float64 [systems with confidences, groups], sums of confidences.
    """

    n: int
    groups: tuple[str, ...]
    gold_groups: tuple[str, ...]
    gold: np.ndarray
    named: np.ndarray
    joint: np.ndarray
    confidence: np.ndarray

    @classmethod
    def count(cls, votes: Votes, gold_groups: tuple[str, ...], gold: np.ndarray) -> Statistics:
        """Count. Memory: sources times groups times gold groups.

        Args:
            votes: Votes on the training clips.
            gold_groups: Names of the columns of gold.
            gold: bool [clips, gold groups].
        """
        shape = -1, len(votes.groups)
        y = gold.astype(float)
        return cls(
            len(gold),
            votes.groups,
            gold_groups,
            y.sum(axis=0),
            votes.share.sum(axis=0).reshape(shape),
            (votes.share.T @ y).reshape(*shape, len(gold_groups)),
            votes.confidence.sum(axis=0).reshape(shape),
        )

    def of(self, groups: Sequence[str]) -> Statistics:
        """Return the same counts with other columns: groups never named have none."""
        if tuple(groups) == self.groups:
            return self
        index = {group: column for column, group in enumerate(self.groups)}
        here = [column for column, group in enumerate(groups) if group in index]
        there = [index[groups[column]] for column in here]

        def put(table: np.ndarray) -> np.ndarray:
            wide = np.zeros((table.shape[0], len(groups), *table.shape[2:]))
            wide[:, here] = table[:, there]
            return wide

        named, joint, confidence = map(put, (self.named, self.joint, self.confidence))
        return Statistics(
            self.n, tuple(groups), self.gold_groups, self.gold, named, joint, confidence
        )

    @property
    def frequency(self) -> np.ndarray:
        """Share of clips whose gold has each gold group, smoothed by half a clip.

        float64 [gold groups + 1]; the last number is that of a group that is in no gold.
        """
        return (np.append(self.gold, 0.0) + 0.5) / (self.n + 1)

    def columns(self, groups: Sequence[str]) -> np.ndarray:
        """Return where groups stand in :attr:`frequency`, int64."""
        index = {group: column for column, group in enumerate(self.gold_groups)}
        return np.array([index.get(group, len(index)) for group in groups], np.int64)

    def hits(self) -> np.ndarray:
        """Votes for each group where it was in gold, float64 [sources, groups]."""
        at = self.columns(self.groups)
        known = at < len(self.gold_groups)
        found = np.zeros(self.named.shape)
        found[:, known] = self.joint[:, known, at[known]]
        return found

    def reliability(self) -> np.ndarray:
        """Log odds that a source is right on a group, over those of all its votes.

        float64 [sources, groups].
        """
        hits = self.hits()
        base = (hits.sum(axis=1) + 1) / (self.named.sum(axis=1) + 2)
        rate = (hits + PRIOR_CASES * base[:, None]) / (self.named + PRIOR_CASES)
        return logit(rate) - logit(base)[:, None]

    def lift(self) -> np.ndarray:
        """Log of how much likelier a gold group is where a source named a group.

        float64 [sources, groups, gold groups + 1]; the last column is that of a group in no gold.
        """
        joint = np.concatenate([self.joint, np.zeros((*self.joint.shape[:2], 1))], axis=2)
        base = self.frequency
        rate = (joint + PRIOR_CASES * base) / (self.named[..., None] + PRIOR_CASES)
        return np.log(rate / base)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and objects; of tables, what is not 0."""
        return {
            "n": self.n,
            "groups": list(self.groups),
            "gold": dict(zip(self.gold_groups, self.gold.tolist(), strict=True)),
            **{name: _cells(getattr(self, name)) for name in ("named", "joint", "confidence")},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Statistics:
        """Undo :meth:`to_json`."""
        return cls(
            data["n"],
            tuple(data["groups"]),
            tuple(data["gold"]),
            np.array(list(data["gold"].values()), float),
            *(_table(data[name]) for name in ("named", "joint", "confidence")),
        )


def _cells(table: np.ndarray) -> dict[str, Any]:
    at = np.nonzero(table)
    cells = [[*map(int, key), float(table[key])] for key in zip(*at, strict=True)]
    return {"shape": list(table.shape), "cells": cells}


def _table(data: Mapping[str, Any]) -> np.ndarray:
    table = np.zeros(data["shape"])
    for *key, value in data["cells"]:
        table[tuple(key)] = value
    return table


def word_counts(gold: Labels, names: Iterable[str]) -> dict[str, int]:
    """How many clips' gold labels hold each word, normalised."""
    counts = Counter(word for n in names for word in {normalise(x) for x in gold[n]} if word)
    return dict(sorted(counts.items()))
