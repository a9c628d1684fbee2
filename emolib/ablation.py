"""Whole image against face crop: which of them is better, and where the difference comes from.

The paper (section 3.2.2) sees the face crop lose and supposes that the crop's poor resolution
is why. Three other causes look the same in one number: faces that were not found, surroundings
that are cut away, and chance. So every comparison here is paired and is also made within parts
of the clips, by how many frames a face was found in and by how large the faces are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from emolib.predict import Prediction, View, labels_of
from emolib.scoring import Comparison, Score, compare, score
from emolib.scoring.grouping import Grouping

Labels = Mapping[str, Sequence[str]]

ARMS: dict[View, str] = {
    "whole": "whole image",
    "face": "face crop",
    "both": "face crop + whole image",
}
PAIRS: tuple[tuple[View, View], ...] = (("whole", "face"), ("both", "whole"), ("both", "face"))
# Below this an interval over clips says nothing.
LEAST = 5


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the clips.

    Attributes:
        by: What divides them: "all", "face found" or "face size".
        name: Which part, for people.
        clips: Their names.
    """

    by: Literal["all", "face found", "face size"]
    name: str
    clips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartResult:
    """Scores of the arms on one part.

    Attributes:
        by: See :class:`Part`.
        name: See :class:`Part`.
        n: Clips.
        avg: Avg of each arm; empty without clips.
        differences: "whole - face" and so on -> ``{"avg", "ci95", "p"}``: difference in Avg,
            its paired 95 % interval and permutation p value; empty below :data:`LEAST` clips.
    """

    by: str
    name: str
    n: int
    avg: dict[str, float] = field(default_factory=dict)
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def face_sizes(face: Sequence[Prediction]) -> dict[str, float]:
    """Side of the square that the crops show, pixels of the video: median of each clip's faces.

    Args:
        face: Predictions of a view with crops; clips without any face are left out.
    """
    seen = {p.name: p.info["faces"] for p in face if "faces" in p.info}
    return {name: one["median_source_px"] for name, one in seen.items() if one["found"]}


def size_bounds(face: Sequence[Prediction], given: Sequence[float] = ()) -> tuple[float, ...]:
    """Bounds between small and large faces, pixels: as given, else terciles of the clips."""
    if given:
        return tuple(given)
    sizes = list(face_sizes(face).values())
    if not sizes:
        return ()
    return tuple(dict.fromkeys(float(round(q)) for q in np.quantile(sizes, [1 / 3, 2 / 3])))


def make_parts(face: Sequence[Prediction], bounds: Sequence[float]) -> list[Part]:
    """Divide the clips by what the face detector saw of them; all of them first.

    Args:
        face: Predictions of a view with crops. A clip that could not be read has no place
            in any part but the first.
        bounds: Ascending, pixels.

    Returns:
        All, then three parts by frames with a face, then ``len(bounds) + 1`` by face size.
    """
    seen = {p.name: p.info["faces"] for p in face if "faces" in p.info}
    none = [name for name, one in seen.items() if one["found"] == 0]
    every = [name for name, one in seen.items() if 0 < one["found"] == one["frames"]]
    some = [name for name, one in seen.items() if 0 < one["found"] < one["frames"]]
    parts = [
        Part("all", "all clips", tuple(p.name for p in face)),
        Part("face found", "no face in any frame", tuple(none)),
        Part("face found", "a face in some frames", tuple(some)),
        Part("face found", "a face in every frame", tuple(every)),
    ]
    sizes = face_sizes(face)
    place = {name: int(np.searchsorted(bounds, size, side="right")) for name, size in sizes.items()}
    edges = [f"{edge:g}" for edge in bounds]
    names = [f"face below {edges[0]} px"] if edges else ["any size"]
    names += [f"face {low} to {high} px" for low, high in pairwise(edges)]
    names += [f"face {edges[-1]} px and more"] if edges else []
    for number, name in enumerate(names):
        inside = tuple(clip for clip, where in place.items() if where == number)
        parts.append(Part("face size", name, inside))
    return parts


def score_arms(
    gold: Labels, arms: Mapping[View, Sequence[Prediction]], grouping: Grouping, *, seed: int
) -> dict[View, Score]:
    """Score every arm on the same clips."""
    return {
        view: score(gold, labels_of(rows, gold), grouping, seed=seed) for view, rows in arms.items()
    }


def compare_arms(scores: Mapping[View, Score], *, seed: int) -> dict[str, Comparison]:
    """Compare the arms two by two, paired clip by clip: "whole - face" -> comparison."""
    return {
        f"{a} - {b}": compare(scores[a], scores[b], seed=seed)
        for a, b in PAIRS
        if a in scores and b in scores
    }


def by_part(
    gold: Labels,
    arms: Mapping[View, Sequence[Prediction]],
    parts: Sequence[Part],
    grouping: Grouping,
    *,
    seed: int,
) -> list[PartResult]:
    """Compare the arms within every part.

    These are many tests of one data set: they show where to look, and their p values are not
    corrected. Cost: some 0.1 s a part.
    """
    results = []
    for part in parts:
        inside = {name: gold[name] for name in part.clips if name in gold}
        if not inside:
            results.append(PartResult(part.by, part.name, 0))
            continue
        scores = score_arms(inside, arms, grouping, seed=seed)
        found = compare_arms(scores, seed=seed) if len(inside) >= LEAST else {}
        differences = {
            name: {
                "avg": one.difference["avg"],
                "ci95": one.ci95["avg"],
                "p": one.p_permutation["avg"],
            }
            for name, one in found.items()
        }
        avg = {str(view): one.avg for view, one in scores.items()}
        results.append(PartResult(part.by, part.name, len(inside), avg, differences))
    return results


def size_trend(
    scores: Mapping[View, Score], face: Sequence[Prediction], *, seed: int, draws: int = 10_000
) -> dict[str, dict[str, float]]:
    """Do differences between arms grow with the face? Spearman's rank correlation over clips.

    If the crop lost for want of resolution, it would lose less where faces are large: "whole -
    face" would fall with face size.

    Returns:
        "whole - face" and so on -> ``{"n", "rho", "p"}``, p by permutation of the sizes;
        empty with fewer than :data:`LEAST` clips with a face.
    """
    sizes = face_sizes(face)
    clips = next(iter(scores.values())).clips
    rows = [row for row, name in enumerate(clips) if name in sizes]
    if len(rows) < LEAST:
        return {}
    ranks = _standard(rankdata([sizes[clips[row]] for row in rows]))
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(ranks, (draws, 1)), axis=1)
    trends = {}
    for a, b in PAIRS:
        if a not in scores or b not in scores:
            continue
        gap = (_avg_of_clips(scores[a]) - _avg_of_clips(scores[b]))[rows]
        standard = _standard(rankdata(gap))
        rho = float(ranks @ standard) / len(rows)
        chance = np.abs(shuffled @ standard) / len(rows)
        p = (1 + int((chance >= abs(rho) - 1e-12).sum())) / (draws + 1)
        trends[f"{a} - {b}"] = {"n": len(rows), "rho": round(rho, 4), "p": round(p, 4)}
    return trends


def _avg_of_clips(found: Score) -> np.ndarray:
    table = found.per_clip
    return ((table["accuracy"] + table["recall"]) / 2).to_numpy(float)


def _standard(values: np.ndarray) -> np.ndarray:
    """Bring to mean 0 and deviation 1; all alike gives zeros."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))
