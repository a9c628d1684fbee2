"""What calibrated fusion depends on: the grouping it is fitted under, labelled clips, systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emolib import fusion
from emolib.errors import ScoreError
from emolib.fusion import folds
from emolib.fusion.candidates import Labels
from emolib.params.fusion import CurveParams, FusionParams
from emolib.progress import Progress
from emolib.report import Cell, table
from emolib.scoring import Comparison, Grouping, Score, compare, compare_means, score_systems
from emolib.strategies.fuse import (
    MAJORITY,
    OURS,
    Fused,
    chosen,
    cross_options,
    settings_of,
    usable,
)
from emolib.strategies.sources import Source


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a learning curve.

    Attributes:
        number: Labelled clips, or sources.
        f1: F1 of each random choice.
        labels_per_clip: Mean over the choices.
        against: Mean paired difference to majority over the choices.
    """

    number: int
    f1: tuple[float, ...]
    labels_per_clip: float
    against: Comparison

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "number": self.number,
            "f1": {
                "mean": float(np.mean(self.f1)),
                "lowest": min(self.f1),
                "highest": max(self.f1),
            },
            "choices": len(self.f1),
            "labels_per_clip": self.labels_per_clip,
            "majority": self.against.b["f1"],
            "minus_majority": {
                "difference": self.against.difference["f1"],
                "ci95": self.against.ci95["f1"],
                "p": self.against.p_permutation["f1"],
            },
        }


def transfer(
    gold: Labels,
    sources: Mapping[str, Source],
    params: FusionParams,
    *,
    groupings: Sequence[object],
    blocks: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, list[str]]]:
    """Fuse under each grouping alone: name of the grouping -> clip -> labels.

    Args:
        gold: Clip -> reference labels.
        sources: Systems.
        params: What is fused and how.
        groupings: Groupings; those that do not depend on the label alone are left out.
        blocks: Clips that must not be parted.
        seed: Seed of the folds.
    """
    options = cross_options(gold, chosen(sources, params), params, blocks, seed)
    under = usable(groupings)
    if len(under) < 2:
        return {}
    return {one.name: fusion.cross_predict(gold, grouping=one, **options).labels for one in under}


def transfer_table(
    title: str,
    gold: Labels,
    fitted: Mapping[str, Labels],
    others: Mapping[str, Labels],
    groupings: Sequence[Grouping],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """One row per grouping of the fit and of the score: F1, and the lead over other rules.

    Args:
        title: Heading.
        gold: Clip -> reference labels.
        fitted: Grouping of the fit -> clip -> labels.
        others: Rule -> clip -> labels, that calibrated fusion is compared with.
        groupings: Groupings of the scores.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.
    """
    rows: list[list[Cell]] = []
    for one in groupings:
        every = {**{f"fit {name}": x for name, x in fitted.items()}, **others}
        scores = score_systems(gold, every, one, resamples=resamples, seed=seed)
        for name in fitted:
            row: list[Cell] = [name, one.name, scores[f"fit {name}"].f1]
            for rule in others:
                row.append(_lead(scores, f"fit {name}", rule, resamples, seed))
            rows.append(row)
    columns = ["fitted under", "scored under", "F1", *(f"minus {rule}" for rule in others)]
    return table(title, columns, rows)


def clips_curve(
    gold: Labels,
    sources: Mapping[str, Source],
    params: FusionParams,
    curves: CurveParams,
    *,
    grouping: Grouping,
    blocks: Mapping[str, str] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[list[Point], list[str]]:
    """How F1 depends on the number of labelled clips.

    Each outer fold's clips are fused by a fuser that was fitted on so many clips of the other
    folds, chosen at random, with as many inner folds as these allow.

    Args:
        gold: Clip -> reference labels.
        sources: Systems.
        params: What is fused and how.
        curves: Numbers and repeats.
        grouping: Grouping of fit and score, one that depends on the label alone.
        blocks: Clips that must not be parted.
        resamples: Bootstrap resamples and permutations of the paired tests.
        seed: Seed of folds and choices.

    Returns:
        The points, and a line for each choice of clips on which nothing could be fitted.
    """
    parts = chosen(sources, params)
    options = cross_options(gold, parts, params, blocks, seed)
    outer = options.pop("outer")
    fold_of = folds.split(gold, outer, seed, blocks)
    systems: dict[str, Labels] = options["preds"]
    majority = fusion.majority(systems, grouping=grouping)
    most = min(sum(fold_of[c] != k for c in gold) for k in range(outer))
    counts = sorted({min(count, most) for count in curves.clips})
    rows: dict[tuple[int, int], dict[str, list[str]]] = {}
    lines = []
    choices = [(n, repeat) for n in counts for repeat in range(curves.repeats if n < most else 1)]
    with Progress("learning curve over clips", len(choices) * outer) as progress:
        for count, repeat in choices:
            found: dict[str, list[str]] = {}
            try:
                for k in range(outer):
                    train = _some(gold, fold_of, k, count, seed + repeat)
                    inner = min(params.inner, _independent(train, blocks))
                    test = [c for c in gold if fold_of[c] == k]
                    found |= _fused(train, test, options, params, grouping, inner, seed)
                    progress.advance()
            except ScoreError as error:
                lines.append(f"learning curve, {count} clips, choice {repeat + 1}: {error}")
                continue
            rows[count, repeat] = {clip: found[clip] for clip in gold}
    every = dict.fromkeys(rows, majority)
    return _points(gold, rows, every, grouping, resamples, seed), lines


def sources_curve(
    gold: Labels,
    sources: Mapping[str, Source],
    params: FusionParams,
    curves: CurveParams,
    *,
    grouping: Grouping,
    blocks: Mapping[str, str] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[list[Point], list[str]]:
    """How F1 depends on the number of sources: models with all their outputs, or systems.

    Arguments as for :func:`clips_curve`. Majority is that of the same systems.
    """
    parts = chosen(sources, params)
    units = list(dict.fromkeys(s.family or s.title for s in parts))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(units)) for _ in range(curves.repeats)]  # one joins the others
    counts = sorted({min(count, len(units)) for count in curves.sources})
    rows: dict[tuple[int, int], dict[str, list[str]]] = {}
    majority: dict[tuple[int, int], dict[str, list[str]]] = {}
    lines = []
    for count in counts:
        picks = {tuple(sorted(order[:count].tolist())) for order in orders}
        for number, pick in enumerate(sorted(picks)):
            some = [s for s in parts if (s.family or s.title) in {units[i] for i in pick}]
            options = cross_options(gold, some, params, blocks, seed)
            try:
                fused = fusion.cross_predict(gold, grouping=grouping, **options)
            except ScoreError as error:
                lines.append(f"learning curve, {[units[i] for i in pick]}: {error}")
                continue
            rows[count, number] = fused.labels
            majority[count, number] = fusion.majority(options["preds"], grouping=grouping)
    return _points(gold, rows, majority, grouping, resamples, seed), lines


def enough_clips(points: Sequence[Point]) -> int | None:
    """Return from how many labelled clips on every point's lead over majority is certain.

    Certain: the paired 95 % interval is above zero. None when it is so nowhere.
    """
    found = None
    for point in sorted(points, key=lambda one: -one.number):
        if point.against.ci95["f1"][0] <= 0:
            break
        found = point.number
    return found


def curve_table(title: str, points: Sequence[Point], counted: str) -> dict[str, Any]:
    """One row per point: F1 over random choices, and the paired lead over majority."""
    rows: list[list[Cell]] = []
    for one in points:
        low, high = one.against.ci95["f1"]
        rows.append(
            [
                *(one.number, len(one.f1), float(np.mean(one.f1)), min(one.f1), max(one.f1)),
                *(one.labels_per_clip, one.against.b["f1"], one.against.difference["f1"]),
                *(f"{low:+.4f} to {high:+.4f}", one.against.p_permutation["f1"]),
            ]
        )
    columns = [counted, "choices", "F1, mean", "lowest", "highest", "labels per clip"]
    columns += ["majority", "Δ F1", "95 % interval", "p (permutation)"]
    made = table(title, columns, rows)
    made["notes"] = [
        "Choices: random choices of clips or sources. Δ F1: calibrated fusion minus majority of "
        "the same systems, mean over the choices; the interval is about other clips."
    ]
    return made


def sets_table(
    title: str,
    gold: Labels,
    sets: Mapping[str, Fused],
    groupings: Sequence[Grouping],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """One row per set of systems and rule: F1 under each grouping, and what ours leads by.

    Args:
        title: Heading.
        gold: Clip -> reference labels.
        sets: Name of the set -> what the rules make of it.
        groupings: Groupings of the scores.
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.
    """
    rows: list[list[Cell]] = []
    for name, fused in sets.items():
        graded = [
            score_systems(gold, fused.labels, one, resamples=resamples, seed=seed)
            for one in groupings
        ]
        for rule in fused.labels:
            first = graded[0][rule]
            row: list[Cell] = [name, len(fused.systems), rule, first.accuracy, first.recall]
            row.append(round(first.labels_per_clip, 2))
            for scores in graded:
                comparable = rule != OURS and OURS in scores
                lead = _lead(scores, OURS, rule, resamples, seed) if comparable else None
                row += [scores[rule].f1, lead]
            rows.append(row)
    columns = ["set", "systems", "rule", "accuracy", "recall", "labels per clip"]
    for one in groupings:
        columns += [f"F1, {one.name}", f"calibrated fusion - rule, {one.name}"]
    return table(title, columns, rows)


def _lead(scores: Mapping[str, Score], name: str, rule: str, resamples: int, seed: int) -> str:
    """Lead of one rule over another in F1, with its interval, as text."""
    found = compare(scores[name], scores[rule], resamples=resamples, seed=seed)
    low, high = found.ci95["f1"]
    return f"{found.difference['f1']:+.4f} [{low:+.4f}, {high:+.4f}]"


def _some(
    gold: Labels, fold_of: Mapping[str, int], k: int, count: int, seed: int
) -> dict[str, Sequence[str]]:
    """So many clips outside a fold, the same whatever the order of gold."""
    others = sorted(c for c in gold if fold_of[c] != k)
    picked = np.random.default_rng((seed, k)).permutation(len(others))[:count]
    return {others[i]: gold[others[i]] for i in sorted(picked.tolist())}


def _independent(names: Mapping[str, object], blocks: Mapping[str, str] | None) -> int:
    return max(2, len({(blocks or {}).get(name, f"clip {name}") for name in names}))


def _fused(
    train: Mapping[str, Sequence[str]],
    test: Sequence[str],
    options: Mapping[str, Any],
    params: FusionParams,
    grouping: Grouping,
    inner: int,
    seed: int,
) -> dict[str, list[str]]:
    """Labels of some clips by a fuser of others."""
    fuser = fusion.fit(
        train,
        options["preds"],
        options["confidences"],
        settings=settings_of(params, inner, seed),
        grouping=grouping,
        blocks=options["blocks"],
        families=options["families"],
    )
    part = {s: {c: rows[c] for c in test} for s, rows in options["preds"].items()}
    return fuser.predict(part, options["confidences"])


def _points(
    gold: Labels,
    rows: Mapping[tuple[int, int], Labels],
    majority: Mapping[tuple[int, int], Labels],
    grouping: Grouping,
    resamples: int,
    seed: int,
) -> list[Point]:
    points = []
    for number in sorted({number for number, _ in rows}):
        own = [key for key in rows if key[0] == number]
        scored = score_systems(
            gold,
            {f"{OURS} {k}": rows[k] for k in own} | {f"{MAJORITY} {k}": majority[k] for k in own},
            grouping,
            resamples=0,
        )
        pairs = [(scored[f"{OURS} {k}"], scored[f"{MAJORITY} {k}"]) for k in own]
        found = compare_means(pairs, resamples=resamples, seed=seed)
        f1 = tuple(ours.f1 for ours, _ in pairs)
        length = float(np.mean([ours.labels_per_clip for ours, _ in pairs]))
        points.append(Point(number, f1, length, found))
    return points
