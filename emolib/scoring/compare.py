"""Two systems on the same clips and the same groups: paired intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from emolib.errors import ScoreError
from emolib.scoring import constant, uncertainty
from emolib.scoring.openset import METRICS, exact_means, score_means
from emolib.scoring.result import Score


@dataclass(frozen=True, eq=False)
class Comparison:
    """System A minus system B, paired clip by clip. Dictionaries are keyed by metric.

    Attributes:
        n: Clips both were scored on.
        left_out: Clips only one of them has (0 unless ``clips="shared"``).
        a: Scores of A on these clips.
        b: Scores of B on these clips.
        difference: A minus B.
        ci95: Paired bootstrap interval of the difference [lo, hi]: percentile under the
            metric's name, BCa under name + "_bca".
        p_bootstrap: Two-sided p value from the paired bootstrap (twice the smaller tail).
        p_permutation: Two-sided p value of the paired permutation test.
        grouping: ``{"name", "version"}`` shared by both.
    """

    n: int
    left_out: int
    a: dict[str, float]
    b: dict[str, float]
    difference: dict[str, float]
    ci95: dict[str, list[float]]
    p_bootstrap: dict[str, float]
    p_permutation: dict[str, float]
    grouping: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def compare(
    score_a: Score,
    score_b: Score,
    *,
    clips: Literal["same", "shared"] = "same",
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Test whether two systems differ, on shared clips and shared partitions.

    With groupings that depend on the labels alone (exact, lexicon, wheels) any two systems
    meet the same partition. Stored or model-made groups are per clip and cover one system's
    labels; a second system whose labels they do not hold would be scored by spelling alone.
    Such a pair is refused unless both scores used the same answers and these know every
    label of both: group the union of all labels first (``LlmGrouping.freeze``).

    Args:
        score_a: System A.
        score_b: System B.
        clips: "same": both cover the same clips, else error; "shared": use those in both.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.

    Raises:
        ScoreError: groupings or clips differ, or the groups do not cover both systems.
    """
    if score_a.grouping != score_b.grouping:
        raise ScoreError(
            f"the systems were scored with different groups: {score_a.grouping} and "
            f"{score_b.grouping}: score both with the same grouping and version"
        )
    if not (score_a.shared and score_b.shared):
        covered = min(score_a.coverage, score_b.coverage)
        if score_a.grouping["name"] != "cached" or covered < 1:
            raise ScoreError(
                f"grouping {score_a.grouping['name']!r} gives each system a partition of its own "
                f"(coverage {score_a.coverage:.3f} and {score_b.coverage:.3f}): group the union of "
                "both systems' labels (LlmGrouping.freeze), or compare with lexicon, exact or a "
                "wheel"
            )
    rows_a, rows_b, left_out = _shared_rows(score_a, score_b, clips)
    a, b = score_a.columns[rows_a], score_b.columns[rows_b]
    return _paired(a, b, score_a.grouping, left_out, resamples, seed)


def compare_means(
    pairs: Sequence[tuple[Score, Score]], *, resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Test the mean difference of several pairs of systems, all on the same clips.

    Clips are resampled, or swapped, for all pairs together: the interval is about other clips,
    with these very systems.

    Args:
        pairs: A and B of each pair, all scored on the same clips with one grouping that depends
            on the labels alone.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.

    Returns:
        ``a``, ``b`` and ``difference`` are means over the pairs.

    Raises:
        ScoreError: no pairs, or clips or groupings differ.
    """
    every = [score for pair in pairs for score in pair]
    if not every:
        raise ScoreError("no pairs of systems to compare")
    first = every[0]
    if any(score.clips != first.clips or score.grouping != first.grouping for score in every):
        raise ScoreError("the systems were scored on different clips or with different groups")
    if not first.shared:
        raise ScoreError(f"grouping {first.grouping['name']!r} depends on the system")

    def mean(means: np.ndarray) -> np.ndarray:
        parts = np.split(means, len(pairs), axis=-1)
        return np.mean([score_means(part) for part in parts], axis=0)

    a, b = (np.hstack([pair[side].columns for pair in pairs]) for side in (0, 1))
    return _paired(a, b, first.grouping, 0, resamples, seed, mean)


def against_constants(
    score: Score, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Comparison]:
    """A system minus the best constant lists on its own clips, paired clip by clip.

    The lists are chosen on these very clips with their gold labels, which no system may do, so
    the tests favour the lists: a lead that stands here is one. Under per-clip groups a label that
    a clip's answer does not hold can only miss, which favours the system instead.

    Args:
        score: The system.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.

    Returns:
        "same_length": against the list with the best Avg that is no longer than the system's
        lists (mean, rounded up); "any_length": the best Avg of all lists; "best_f1": the best F1.
    """
    best = score.constant_list
    lists = {"same_length": best["same_length"], "any_length": best, "best_f1": best["best_f1"]}
    return {
        name: _paired(
            score.columns,
            constant.constant_columns(score.data, found["labels"]),
            score.grouping,
            0,
            resamples,
            seed,
        )
        for name, found in lists.items()
    }


def _paired(
    a: np.ndarray,
    b: np.ndarray,
    grouping: dict[str, str],
    left_out: int,
    resamples: int,
    seed: int,
    statistic: uncertainty.Statistic = score_means,
) -> Comparison:
    """Compare per-clip columns, row by row."""
    width = a.shape[1]

    def gap(means: np.ndarray) -> np.ndarray:
        return statistic(means[..., :width]) - statistic(means[..., width:])

    found = uncertainty.bootstrap(np.hstack([a, b]), gap, resamples, seed)
    tails = np.stack([(found.draws <= 0).mean(axis=0), (found.draws >= 0).mean(axis=0)])
    p_bootstrap = np.minimum(1, 2 * np.maximum(tails.min(axis=0), 1 / (resamples + 1)))
    p_permutation = uncertainty.permutation_p(a, b, statistic, resamples, seed)
    scores = [statistic(exact_means(x)) for x in (a, b)]

    def named(values: np.ndarray) -> dict[str, Any]:
        return dict(zip(METRICS, values.tolist(), strict=True))

    bca = {f"{name}_bca": ends for name, ends in named(found.bca).items()}
    return Comparison(
        n=len(a),
        left_out=left_out,
        a=named(scores[0]),
        b=named(scores[1]),
        difference=named(scores[0] - scores[1]),
        ci95=named(found.percentile) | bca,
        p_bootstrap=named(p_bootstrap),
        p_permutation=named(p_permutation),
        grouping=dict(grouping),
    )


def _shared_rows(score_a: Score, score_b: Score, clips: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows of the shared clips in both, and how many clips only one has."""
    where = {name: row for row, name in enumerate(score_b.clips)}
    pairs = [(i, where[x]) for i, x in enumerate(score_a.clips) if x in where]
    left_out = score_a.n + score_b.n - 2 * len(pairs)
    if left_out and clips != "shared":
        raise ScoreError(
            f"the systems were scored on {score_a.n} and {score_b.n} clips, {len(pairs)} of them "
            'shared: score both on the same clips, or compare on the shared ones (clips="shared")'
        )
    if not pairs:
        raise ScoreError("the systems share no clip")
    rows = np.array(pairs)
    return rows[:, 0], rows[:, 1], left_out
