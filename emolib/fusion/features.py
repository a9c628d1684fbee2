"""What the model looks at in a candidate: a dozen numbers with names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emolib.fusion.candidates import family
from emolib.fusion.statistics import Statistics, logit
from emolib.fusion.votes import Votes

_CLIPS = 256  # handled at once, so that memory does not grow with the clips


def feature_names(
    sources: Sequence[str], confident: Sequence[str], similar: bool = False
) -> tuple[str, ...]:
    """Names of :func:`features`, in order.

    ==================  ============================================================
    named: SOURCE       share of the source's systems that named the group (1 when it is one
                        system)
    agreement           votes of all sources beyond the largest
    list length         minus the log length of the lists that hold it, mean over votes
    frequency           log odds of the group in training gold
    reliability         log odds that these sources are right on this very group, mean
    co-occurrence       log lift of the group given everything else that was named, mean
    kin                 share of the other sources that named a group of its family
    confidence: SYSTEM  log of the system's confidence in the group over its mean
    similar clips       log odds of the group by ridge regression on all votes, where
                        :class:`~emolib.fusion.ridge.Ridge` is used
    ==================  ============================================================
    """
    shared = ("agreement", "list length", "frequency", "reliability", "co-occurrence", "kin")
    return (
        *(f"named: {s}" for s in sources),
        *shared,
        *(f"confidence: {s}" for s in confident),
        *(("similar clips",) if similar else ()),
    )


def candidate_mask(votes: Votes, added: Sequence[str] = ()) -> np.ndarray:
    """Return which groups are candidates: those a source named, and some that always are.

    Returns:
        bool [clips, groups].
    """
    mask = np.zeros((votes.share.shape[0], len(votes.groups)), bool)
    rows, cells = votes.share.nonzero()
    mask[rows, cells % max(len(votes.groups), 1)] = True
    mask[:, [column for column, group in enumerate(votes.groups) if group in set(added)]] = True
    return mask


def features(votes: Votes, stats: Statistics, mask: np.ndarray) -> np.ndarray:
    """Describe candidates.

    Args:
        votes: What was named.
        stats: Counts over other clips.
        mask: bool [clips, groups], the candidates.

    Returns:
        float64 [candidates, features without "similar clips"], in the order of the mask. Cost:
        clips times sources times groups.
    """
    stats = stats.of(votes.groups)
    tables = (
        logit(stats.frequency)[stats.columns(votes.groups)],
        stats.reliability(),
        stats.lift(),
        _kinship(votes.groups),
    )
    parts = [
        _chunk(votes.rows(np.arange(start, min(start + _CLIPS, len(mask)))), stats, tables, part)
        for start in range(0, len(mask), _CLIPS)
        if (part := mask[start : start + _CLIPS]).any()
    ]
    width = votes.sources + 6 + votes.confident
    return np.concatenate(parts) if parts else np.zeros((0, width))


def _chunk(
    votes: Votes, stats: Statistics, tables: tuple[np.ndarray, ...], mask: np.ndarray
) -> np.ndarray:
    frequency, reliability, lift, kinship = tables
    rows, at = np.nonzero(mask)
    cube = votes.cube()
    length = np.log(np.maximum(cube.sum(axis=2), 1e-9))  # of a source's list
    of_gold = stats.columns(votes.groups)
    own = lift[:, np.arange(len(votes.groups)), of_gold]  # a vote for the group itself
    every = votes.share @ lift.reshape(-1, lift.shape[2])
    total = cube.sum(axis=(1, 2))
    kin = np.minimum(cube @ kinship - cube * np.diag(kinship), 1.0)

    vote = cube[rows, :, at]  # [candidates, sources]
    support, silent = vote.sum(axis=1), (1 - vote).sum(axis=1)
    rest = total[rows] - support
    others = every[rows, of_gold[at]] - (vote * own.T[at]).sum(axis=1)
    return np.column_stack(
        [
            vote,
            support - vote.max(axis=1, initial=0.0),
            -_ratio((vote * length[rows]).sum(axis=1), support),
            frequency[at],
            _ratio((vote * reliability.T[at]).sum(axis=1), support),
            _ratio(others, rest),
            _ratio(((1 - vote) * kin[rows, :, at]).sum(axis=1), silent),
            _confidence(votes, stats)[rows, :, at],
        ]
    )


def _kinship(groups: Sequence[str]) -> np.ndarray:
    """Which groups are of one family, float64 [groups, groups]."""
    kin = [family(group.removeprefix("=")) for group in groups]
    return np.array([[a is not None and a == b for b in kin] for a in kin], float).reshape(
        len(kin), len(kin)
    )


def _confidence(votes: Votes, stats: Statistics) -> np.ndarray:
    """Log of each confidence over its mean, float64 [clips, systems, groups]; 0 when unseen."""
    sure, mean = votes.confidences(), stats.confidence / max(stats.n, 1)
    lift = np.log((sure + 0.01) / (mean + 0.01))
    return np.where((mean > 0) & (sure > 0), lift, 0.0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part over whole; 0 where there is nothing to divide by."""
    some = whole > 1e-9
    return np.where(some, part / np.where(some, whole, 1.0), 0.0)
