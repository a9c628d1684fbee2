"""Thousands of systems on one set of clips: sweeps, checkpoints, samples, fusion searches.

Gold labels and groups are read once, and the predictions of all systems are handled as one
table, so that a prediction costs well under a microsecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise, repeat
from math import fsum
from typing import Literal

import numpy as np

from emolib.errors import ScoreError
from emolib.labels import Mode
from emolib.scoring.columns import parse_column
from emolib.scoring.encode import LabelSets, distinct, encode
from emolib.scoring.evaluate import match_names, score
from emolib.scoring.grouping import Assignment, Grouping
from emolib.scoring.openset import ClipCounts, columns_of, score_means
from emolib.scoring.result import Part, Score, ScoreData, build_score

_ROWS = 1 << 17  # predictions handled at once
_TABLE = 20_000_000  # clips times labels; beyond it systems are scored one by one


def score_systems(
    gold: Mapping[str, Sequence[str]],
    systems: Mapping[str, Mapping[str, Sequence[str] | str]],
    grouping: Grouping,
    *,
    mode: Mode = "tolerant",
    missing: Literal["error", "zero"] = "error",
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Score]:
    """Score many systems on the same clips; each as :func:`emolib.scoring.score` would.

    Args:
        gold: Clip name -> reference labels.
        systems: System name -> (clip name -> predicted labels, or their text).
        grouping: Any but "llm", whose groups depend on the system: ``freeze`` it first.
        mode: Parser of texts.
        missing: Gold clips without a prediction: "error" or "zero".
        resamples: See :func:`emolib.scoring.score`; drawn when first asked for.
        seed: See :func:`emolib.scoring.score`.

    Returns:
        System name -> score, in the order given. Time is linear in the predictions; memory
        holds four numbers a prediction.

    Raises:
        ScoreError: names do not match, or the grouping cannot be used.
    """
    if grouping.name == "llm":
        raise ScoreError("groups made by a model depend on the system: use grouping.freeze(...)")
    clips = list(gold)
    for name, pred in systems.items():
        if pred.keys() != gold.keys():
            try:
                match_names(gold, pred, missing, "error")
            except ScoreError as error:
                raise ScoreError(f"system {name!r}: {error}") from None
    if not systems:
        return {}
    cells = list(chain.from_iterable(map(pred.get, clips, repeat("")) for pred in systems.values()))
    parsed = parse_column(cells, mode)
    gold_sets, _, gold_vocab = encode(gold.values(), [])
    index = {label: code for code, label in enumerate(gold_vocab)}
    numbers = [index.setdefault(label, len(index)) for label in parsed.vocab]
    codes = np.array(numbers, np.int64)[parsed.codes] if numbers else parsed.codes
    vocab = list(index)
    if len(clips) * len(vocab) > _TABLE or not gold_sets.offsets[1:].all():
        lists = iter(parsed.lists())
        return {
            name: score(
                gold,
                {clip: next(lists) for clip in clips},
                grouping,
                resamples=resamples,
                seed=seed,
            )
            for name in systems
        }
    # Every label in every clip, once: the groups of all predictions are then looked up.
    every = LabelSets(
        np.tile(np.arange(len(vocab)), len(clips)), np.arange(len(clips) + 1) * len(vocab)
    )
    gold_sets = gold_sets.once()
    grouped = grouping.assign(clips, gold_sets, every, vocab)
    offsets = np.concatenate([[0], np.cumsum(parsed.lengths)])
    pred_sets = LabelSets(codes, offsets).once()
    counter = _Counter(pred_sets, gold_sets, len(vocab))
    columns = np.column_stack([counter.columns(grouped.views), counter.labels])
    tables = {name: counter.columns(views) for name, views in grouped.tables.items()}
    known = counter.total_by_system(grouped.known_pred[counter.cells])
    tokens = counter.total_by_system(np.ones(len(counter.cells), bool))
    known_gold = int(grouped.known_gold.sum()), len(grouped.known_gold)
    flat = np.array(vocab, dtype=object)[pred_sets.codes]
    means = _means_by_system(columns, len(clips))
    scores = score_means(means)
    made = {}
    for number, name in enumerate(systems):
        own = slice(number * len(clips), (number + 1) * len(clips))
        part = Part(
            clips,
            columns[own],
            {title: rows[own] for title, rows in tables.items()},
            (*known_gold, int(known[number]), int(tokens[number])),
        )

        def source(own: slice = own) -> ScoreData:
            bounds = pred_sets.offsets[own.start : own.stop + 1].tolist()
            lists = [flat[s:e].tolist() for s, e in pairwise(bounds)]
            pred = dict(zip(clips, lists, strict=True))
            return score(gold, pred, grouping, resamples=0).data

        lost = len(gold.keys() - systems[name].keys())
        names = {"missing_zeroed": lost} if lost else {}
        made[name] = build_score(
            clips, [part], source, grouping, names, resamples, seed, means[number], scores[number]
        )
    return made


def _means_by_system(columns: np.ndarray, n: int) -> np.ndarray:
    """:func:`~emolib.scoring.openset.exact_means` of every system, float64 [systems, columns]."""
    means = []
    for column in columns.T:
        blocks = column.reshape(-1, n)
        if (column == np.floor(column)).all():  # whole numbers add up exactly
            means.append(blocks.sum(axis=1) / n)
        else:
            means.append(np.array([fsum(block) / n for block in blocks.tolist()]))
    return np.stack(means, axis=1)


class _Counter:
    """Counts groups and hits of the predictions of all systems, system after system.

    Args:
        pred: Predicted labels, one list a prediction.
        gold: Gold labels of the clips.
        width: Size of the vocabulary.
    """

    def __init__(self, pred: LabelSets, gold: LabelSets, width: int) -> None:
        self._gold, self._n = gold, len(gold)
        self._ends, self._rows = pred.offsets, pred.rows
        # Where a token's group stands in an assignment of every label to every clip.
        self.cells = self._rows % self._n * width + pred.codes
        self.labels = np.diff(pred.offsets)

    def total_by_system(self, flags: np.ndarray) -> np.ndarray:
        """Sum of a number a token over each system, float64 [systems]."""
        systems = len(self.labels) // self._n
        return np.bincount(self._rows // self._n, weights=flags, minlength=systems)

    def columns(self, views: Sequence[Assignment]) -> np.ndarray:
        """As :func:`~emolib.scoring.openset.columns_of`, float64 [predictions, 3 * views]."""
        found = np.empty((len(self.labels), 3 * len(views)))
        for number, view in enumerate(views):
            size = max(len(view.names), 1)
            gold_keys = distinct(self._gold.rows, view.gold, size)
            gold_counts = np.bincount(gold_keys // size, minlength=self._n)
            in_gold = np.zeros(self._n * size, bool)
            in_gold[gold_keys] = True
            for start in range(0, len(self.labels), _ROWS):
                stop = min(start + _ROWS, len(self.labels))
                own = slice(self._ends[start], self._ends[stop])
                keys = distinct(self._rows[own] - start, view.pred[self.cells[own]], size)
                rows = keys // size
                clips = (rows + start) % self._n
                hit = in_gold[clips * size + keys % size]
                n = stop - start
                counts = ClipCounts(
                    gold_counts[np.arange(start, stop) % self._n],
                    np.bincount(rows, minlength=n),
                    np.bincount(rows[hit], minlength=n),
                )
                found[start:stop, 3 * number : 3 * number + 3] = columns_of([counts])
        return found
