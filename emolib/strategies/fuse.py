"""All co-judgment rules over the same systems and clips, and ours with each system left out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emolib import fusion
from emolib.datasets.clip import Clip
from emolib.errors import ScoreError
from emolib.fusion import folds
from emolib.fusion.candidates import Labels
from emolib.params.fusion import FusionParams
from emolib.progress import Progress
from emolib.scoring.grouping import ExactGrouping
from emolib.strategies.sources import Source

CONCAT, OURS = "concat (the paper)", "ours"


@dataclass(frozen=True, slots=True)
class Fused:
    """What every rule makes of the same systems.

    Attributes:
        systems: Title -> labels of what was fused.
        labels: Rule -> clip -> labels. Rules that learn are fitted without the clip; where they
            could not be fitted they are absent.
        cross: Our fusion with its judgements, or None.
        note: What was fused and how, or why ours is not there.
        group_of: Label -> group, as the rules count.
    """

    systems: dict[str, Labels]
    labels: dict[str, dict[str, list[str]]]
    cross: fusion.CrossFusion | None
    note: str
    group_of: fusion.GroupOf

    @property
    def best_rule(self) -> str:
        """Ours, or splicing where ours could not be fitted."""
        return OURS if OURS in self.labels else CONCAT

    def is_right(self, label: str, gold: Sequence[str]) -> bool:
        """Whether a label is correct in at least half of the views of the grouping."""
        return self.group_of.correct(self.group_of.set_of([label]), gold) >= 0.5

    def rows(self) -> list[dict[str, Any]]:
        """One plain prediction a clip, of :attr:`best_rule`."""
        rule = self.best_rule
        return [{"name": c, "system": rule, "labels": x} for c, x in self.labels[rule].items()]

    def to_json(self) -> dict[str, Any]:
        """What was fitted: settings, weights on standardised features (mean over the folds)."""
        if self.cross is None:
            return {"note": self.note}
        fusers = self.cross.fusers
        table = np.array([[view.model.weights for view in f.views] for f in fusers])
        names = fusers[0].views[0].model.features
        features = zip(names, table.mean(axis=(0, 1)).tolist(), strict=True)
        return {
            "note": self.note,
            "outer_folds": len(fusers),
            "settings": asdict(fusers[0].settings),
            "grouping": dict(fusers[0].grouping),
            "precision_weight": float(np.mean([f.precision_weight for f in fusers])),
            "weights": {name: round(w, 4) for name, w in features},
        }


def blocks_of(clips: Sequence[Clip]) -> dict[str, str]:
    """Clip -> what it shares with others: its group (speaker, source video), else its words."""
    found = {}
    for clip in clips:
        if clip.group:
            found[clip.name] = f"group {clip.group}"
        elif clip.subtitle:
            found[clip.name] = f"words {clip.subtitle}"
    return found


def fuse(
    gold: Labels,
    sources: Mapping[str, Source],
    params: FusionParams,
    *,
    grouping: str = "lexicon",
    blocks: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Fused:
    """Fuse by every rule; what learns is fitted by nested cross-validation.

    Cost: some seconds for the 332 clips of MER2024-OV and three systems.

    Args:
        gold: Clip -> reference labels.
        sources: Systems that were run; those of ``params.systems`` among them are fused.
        params: What is fused and how.
        grouping: Groups the score will use; our fusion takes "exact" with it, else the lexicon
            (stored answers and wheels cannot say whether two candidates are synonyms).
        blocks: Clips that must not be parted, see :func:`blocks_of`.
        seed: Seed of the folds.

    Raises:
        ScoreError: none of the systems was run.
    """
    parts = _chosen(sources, params)
    groups = ExactGrouping() if grouping == "exact" else None
    systems: dict[str, Labels] = {s.title: s.labels for s in parts}
    labels = {CONCAT: fusion.concat(list(systems.values()))}
    labels["union of groups"] = fusion.union(systems, groups)
    labels["majority"] = fusion.majority(systems, grouping=groups)
    named = ", ".join(systems)
    try:
        cross = _cross(gold, parts, params, groups, blocks, seed)
        labels["weighted vote, fitted"] = _voted(gold, systems, cross.fold_of, groups)
    except ScoreError as error:
        note = f"fused: {named}; ours was not fitted: {error}"
        return Fused(systems, labels, None, note, fusion.GroupOf(groups))
    labels[OURS] = cross.labels
    note = (
        f"fused: {named}; rules that learn never saw the clip they judge: "
        f"{len(cross.fusers)} outer folds, {cross.fusers[0].settings.folds} inner ones"
    )
    return Fused(systems, labels, cross, note, fusion.GroupOf(groups))


def left_out(
    gold: Labels,
    sources: Mapping[str, Source],
    params: FusionParams,
    *,
    grouping: str = "lexicon",
    blocks: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, list[str]]]:
    """Ours again, each time without one system: title of that system -> clip -> labels.

    Arguments as for :func:`fuse`; same outer folds. What cannot be fitted is absent.
    """
    parts = _chosen(sources, params)
    groups = ExactGrouping() if grouping == "exact" else None
    found = {}
    with Progress("fusion without one system", len(parts)) as progress:
        for gone in parts if len(parts) > 1 else ():
            kept = [s for s in parts if s is not gone]
            with contextlib.suppress(ScoreError):
                found[gone.title] = _cross(gold, kept, params, groups, blocks, seed).labels
            progress.advance()
    return found


def _chosen(sources: Mapping[str, Source], params: FusionParams) -> list[Source]:
    parts = [sources[key] for key in params.systems if key in sources]
    if not parts:
        raise ScoreError(
            f"fusion.systems: none of {list(params.systems)} was run, only {list(sources)}"
        )
    return parts


def _cross(
    gold: Labels,
    parts: Sequence[Source],
    params: FusionParams,
    groups: object | None,
    blocks: Mapping[str, str] | None,
    seed: int,
) -> fusion.CrossFusion:
    outer, inner = _fold_counts(gold, params, blocks, seed)
    settings = fusion.FusionSettings(
        objective=params.objective,
        precision_weight=params.precision_weight,
        cap=params.cap or None,
        add=params.add,
        folds=inner,
        seed=seed,
    )
    return fusion.cross_predict(
        gold,
        {s.title: s.labels for s in parts},
        {s.title: s.confidences for s in parts if s.confidences},
        settings=settings,
        grouping=groups,
        blocks=blocks,
        outer=outer,
        seed=seed,
    )


def _fold_counts(
    gold: Labels, params: FusionParams, blocks: Mapping[str, str] | None, seed: int
) -> tuple[int, int]:
    """Outer and inner folds: as asked for, or as many as the independent clips allow."""

    def independent(names: Sequence[str]) -> int:
        return len({(blocks or {}).get(name, f"clip {name}") for name in names})

    outer = max(2, min(params.outer, independent(list(gold))))
    fold_of = folds.split(gold, outer, seed, blocks)
    least = min(independent([c for c in fold_of if fold_of[c] != k]) for k in range(outer))
    return outer, max(2, min(params.inner, least))


def _voted(
    gold: Labels, systems: Mapping[str, Labels], fold_of: Mapping[str, int], groups: object | None
) -> dict[str, list[str]]:
    """The fitted vote on the same outer folds."""
    found: dict[str, list[str]] = {}
    for k in sorted(set(fold_of.values())):
        train = {c: gold[c] for c in gold if fold_of[c] != k}
        vote = fusion.fit_vote(train, systems, groups)
        test = {s: {c: rows[c] for c in gold if fold_of[c] == k} for s, rows in systems.items()}
        found |= vote.predict(test, groups)
    return {clip: found[clip] for clip in gold}
