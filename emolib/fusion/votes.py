"""What several systems name on some clips, as sparse arrays: what the fitted fusion computes on.

Outputs of one model under several conditions (prompts, epochs) are no independent witnesses. They
can be declared as one *source*, whose vote for a group is the share of its systems that named it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from emolib.fusion.candidates import Confidences, GroupOf, Labels, Systems


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """The votes of all sources on some clips, in one view of the labels.

    Attributes:
        groups: Names of the groups, sorted.
        sources: Number of sources.
        confident: Number of systems with confidences.
        share: float64 [clips, sources * groups], share of a source's systems that named a group,
            in [0, 1]; source after source.
        confidence: float64 [clips, systems with confidences * groups], in (0, 1]; what a system
            gives no confidence for is not stored.
    """

    groups: tuple[str, ...]
    sources: int
    confident: int
    share: csr_array
    confidence: csr_array

    def rows(self, which: np.ndarray) -> Votes:
        """Return the votes on some of the clips."""
        return replace(self, share=self.share[which], confidence=self.confidence[which])

    def cube(self) -> np.ndarray:
        """Return shares as float64 [clips, sources, groups]."""
        shape = self.share.shape[0], self.sources, len(self.groups)
        return self.share.toarray().reshape(shape)

    def confidences(self) -> np.ndarray:
        """Return confidences as float64 [clips, systems with confidences, groups]; 0 = none."""
        shape = self.share.shape[0], self.confident, len(self.groups)
        return self.confidence.toarray().reshape(shape)

    def on(self, groups: Sequence[str]) -> Votes:
        """Return the same votes with other columns; groups that are not among them are dropped."""
        if tuple(groups) == self.groups:
            return self
        index = {group: column for column, group in enumerate(groups)}
        to = np.array([index.get(group, -1) for group in self.groups], np.int64)

        def moved(table: csr_array, blocks: int) -> csr_array:
            cells = table.tocoo()
            block, column = divmod(cells.col, max(len(self.groups), 1))
            known = np.isin(column, np.flatnonzero(to >= 0))
            at = block[known] * len(groups) + to[column[known]]
            shape = table.shape[0], blocks * len(groups)
            return _csr(cells.data[known], cells.row[known], at, shape)

        return replace(
            self,
            groups=tuple(groups),
            share=moved(self.share, self.sources),
            confidence=moved(self.confidence, self.confident),
        )

    def including(self, groups: Sequence[str]) -> Votes:
        """Return the same votes with columns for further groups, which nobody named."""
        return self.on(sorted({*self.groups, *groups}))


def read_votes(
    names: Sequence[str],
    preds: Systems,
    confidences: Confidences,
    group_of: GroupOf,
    families: Mapping[str, str],
) -> list[Votes]:
    """Read what was named on some clips, one array for each view.

    Confidences of synonyms add up, to 1 at most. Linear in the labels.

    Args:
        names: The clips.
        preds: System -> clip -> labels.
        confidences: System -> clip -> label -> [0, 1].
        group_of: Label -> group.
        families: System -> source.
    """
    sources = source_names(preds, families)
    size = {source: sum(families.get(s, s) == source for s in preds) for source in sources}
    views = range(len(group_of.weights))
    named: list[dict[tuple[int, int, str], float]] = [{} for _ in views]
    sure: list[dict[tuple[int, int, str], float]] = [{} for _ in views]
    for system, labels in preds.items():
        source = families.get(system, system)
        column = sources.index(source)
        for row, name in enumerate(names):
            for v, found in enumerate(group_of.sets_of(labels[name])):
                for one in found:
                    key = row, column, one
                    named[v][key] = named[v].get(key, 0.0) + 1 / size[source]
    for column, clips in enumerate(confidences.values()):
        for row, name in enumerate(names):
            for label, value in clips.get(name, {}).items():
                parts = () if (group := group_of(label)) is None else group_of.views(group)
                for v, part in enumerate(parts):
                    if part is not None:
                        key = row, column, part
                        total = sure[v].get(key, 0.0) + float(value)
                        sure[v][key] = min(max(total, 1e-9), 1.0)  # a stated 0 is stored, too
    made = []
    for v in views:
        groups = tuple(sorted({group for _, _, group in (*named[v], *sure[v])}))
        share = _sparse(named[v], len(names), len(sources), groups)
        confidence = _sparse(sure[v], len(names), len(confidences), groups)
        made.append(Votes(groups, len(sources), len(confidences), share, confidence))
    return made


def source_names(systems: Sequence[str] | Systems, families: Mapping[str, str]) -> list[str]:
    """Return the sources of some systems, in order of first appearance."""
    return list(dict.fromkeys(families.get(system, system) for system in systems))


def gold_table(
    names: Sequence[str], gold: Labels, group_of: GroupOf, view: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the gold groups of one view, sorted, and which clip has which.

    Returns:
        Names, and bool [clips, groups].
    """
    sets = [group_of.sets_of(gold[name])[view] for name in names]
    groups = tuple(sorted(frozenset().union(*sets)))
    index = {group: column for column, group in enumerate(groups)}
    table = np.zeros((len(names), len(groups)), bool)
    for row, found in enumerate(sets):
        table[row, [index[group] for group in found]] = True
    return groups, table


def _sparse(
    cells: Mapping[tuple[int, int, str], float], rows: int, blocks: int, groups: tuple[str, ...]
) -> csr_array:
    index = {group: column for column, group in enumerate(groups)}
    at = [(row, block * len(groups) + index[group]) for row, block, group in cells]
    i, j = np.array(at, np.int64).reshape(-1, 2).T
    return _csr(np.array(list(cells.values()), float), i, j, (rows, blocks * len(groups)))


def _csr(values: np.ndarray, i: np.ndarray, j: np.ndarray, shape: tuple[int, int]) -> csr_array:
    table = csr_array((values, (i, j)), shape=shape)
    table.sort_indices()
    return table
