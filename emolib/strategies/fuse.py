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
from emolib.scoring import score_systems
from emolib.scoring.grouping import Grouping, TableGrouping
from emolib.scoring.lexicon import LexiconGrouping
from emolib.scoring.openset import exact_means, score_means
from emolib.strategies.sources import Source, select

CONCAT, MAJORITY, OURS = "concatenation (the paper)", "majority", "calibrated fusion"
SINGLE = "best single system of the other folds"


@dataclass(frozen=True, slots=True)
class Fused:
    """What every rule makes of the same systems.

    Attributes:
        systems: Title -> labels of what was fused.
        families: Title -> source, of systems that are outputs of one model.
        labels: Rule -> clip -> labels. Rules that learn are fitted without the clip; where they
            could not be fitted they are absent.
        cross: Calibrated fusion with its judgements, or None.
        note: What was fused and how, or why calibrated fusion is not there.
        group_of: Label -> group, as the rules without weights count.
    """

    systems: dict[str, Labels]
    families: dict[str, str]
    labels: dict[str, dict[str, list[str]]]
    cross: fusion.CrossFusion | None
    note: str
    group_of: fusion.GroupOf

    @property
    def best_rule(self) -> str:
        """Calibrated fusion, or concatenation where that could not be fitted."""
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
            "families": dict(fusers[0].families),
            "precision_weight": float(np.mean([f.precision_weight for f in fusers])),
            "weights": {name: round(w, 4) for name, w in features},
        }


def blocks_of(
    clips: Sequence[Clip], transcripts: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what clips share with others: the group (speaker, video), else the transcript.

    Args:
        clips: The clips.
        transcripts: Clip -> transcript, for clips that bring none themselves.
    """
    found = {}
    for clip in clips:
        words = clip.subtitle or (transcripts or {}).get(clip.name)
        if clip.group:
            found[clip.name] = f"group {clip.group}"
        elif words:
            found[clip.name] = f"words {words}"
    return found


def blocks_note(clips: Sequence[Clip], blocks: Mapping[str, str]) -> str:
    """State what keeps clips together in folds, and what is not known."""
    kinds = [blocks.get(clip.name, "alone").split(" ")[0] for clip in clips]
    grouped, worded = kinds.count("group"), kinds.count("words")
    note = (
        f"folds: of {len(clips)} clips, {grouped} stay with their speaker or source video and "
        f"{worded} with clips of the same transcript"
    )
    unknown = len(clips) - grouped
    return note + (
        f"; the data name no speaker or source video of {unknown}, so that two of them may be of "
        "one scene"
        if unknown
        else ""
    )


def fuse(
    gold: Labels,
    sources: Mapping[str, Source],
    params: FusionParams,
    *,
    groupings: Sequence[object] = (),
    blocks: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Fused:
    """Fuse by every rule; what learns is fitted by nested cross-validation.

    Cost: some seconds for the 332 clips of MER2024-OV and ten sources.

    Args:
        gold: Clip -> reference labels.
        sources: Systems that were run; those of ``params.systems`` among them are fused.
        params: What is fused and how.
        groupings: Groupings of the scores. Calibrated fusion maximizes the mean of its expected
            scores under those that depend on the label alone, the other rules use the first of
            these; the lexicon where there is none (stored answers cannot say whether two
            candidates are synonyms).
        blocks: Clips that must not be parted, see :func:`blocks_of`.
        seed: Seed of the folds.

    Raises:
        ScoreError: none of the systems was run.
    """
    parts = chosen(sources, params)
    under = usable(groupings)
    systems: dict[str, Labels] = {s.title: s.labels for s in parts}
    families = {s.title: s.family for s in parts if s.family}
    labels = {CONCAT: fusion.concat(list(systems.values()))}
    labels["union of groups"] = fusion.union(systems, under[0])
    labels[MAJORITY] = fusion.majority(systems, grouping=under[0])
    named = _listed(parts)
    try:
        cross = calibrated(gold, parts, params, under, blocks, seed)
        labels["weighted vote, fitted"] = _voted(gold, systems, cross.fold_of, under[0])
        if len(systems) > 1:
            labels[SINGLE] = best_single(gold, systems, cross.fold_of, under[0])
    except ScoreError as error:
        note = f"fused: {named}; calibrated fusion was not fitted: {error}"
        return Fused(systems, families, labels, None, note, fusion.GroupOf(under[0]))
    labels[OURS] = cross.labels
    note = (
        f"fused: {named}; rules that learn never saw the clip they judge: "
        f"{len(cross.fusers)} outer folds, {cross.fusers[0].settings.folds} inner ones; "
        f"calibrated fusion maximizes the expected score under "
        f"{' and '.join(one.name for one in under)}"
    )
    return Fused(systems, families, labels, cross, note, fusion.GroupOf(under[0]))


def fuse_sets(
    gold: Labels,
    sources: Mapping[str, Source],
    sets: Mapping[str, Sequence[str]],
    params: FusionParams,
    **options: Any,
) -> tuple[dict[str, Fused], list[str]]:
    """Fuse several sets of systems in the same way.

    Args:
        gold: Clip -> reference labels.
        sources: All systems.
        sets: Name -> systems, as in ``params.systems``.
        params: How they are fused.
        options: Further arguments of :func:`fuse`.

    Returns:
        Name -> what every rule makes of it, and a line for each set with systems that are not
        there.
    """
    found, lines = {}, []
    with Progress("fusion of further sets", len(sets)) as progress:
        for name, systems in sets.items():
            if absent := [one for one in systems if not select([one], sources)]:
                lines.append(f"set {name!r} lacks {', '.join(absent)}")
            if len(absent) < len(systems):
                own = params.model_copy(update={"systems": tuple(systems)})
                found[name] = fuse(gold, sources, own, **options)
            progress.advance()
    return found, lines


def usable(groupings: Sequence[object]) -> list[TableGrouping]:
    """Return the groupings that depend on the label alone, or the lexicon."""
    return [one for one in groupings if isinstance(one, TableGrouping)] or [LexiconGrouping()]


def left_out(
    gold: Labels,
    sources: Mapping[str, Source],
    params: FusionParams,
    *,
    groupings: Sequence[object] = (),
    blocks: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, list[str]]]:
    """Fuse again, each time without one source: its name -> clip -> labels.

    A source is a system, or all outputs of one model. Arguments as for :func:`fuse`; same outer
    folds. What cannot be fitted is absent.
    """
    parts = chosen(sources, params)
    units = list(dict.fromkeys(s.family or s.title for s in parts))
    found = {}
    with Progress("fusion without one source", len(units)) as progress:
        for gone in units if len(units) > 1 else ():
            kept = [s for s in parts if (s.family or s.title) != gone]
            with contextlib.suppress(ScoreError):
                found[gone] = calibrated(gold, kept, params, usable(groupings), blocks, seed).labels
            progress.advance()
    return found


def best_single(
    gold: Labels, systems: Mapping[str, Labels], fold_of: Mapping[str, int], grouping: Grouping
) -> dict[str, list[str]]:
    """Answer each fold's clips with the system that has the best F1 on the other folds.

    Args:
        gold: Clip -> reference labels.
        systems: Title -> clip -> labels.
        fold_of: Clip -> fold.
        grouping: Groups of the F1.
    """
    scores = score_systems(gold, systems, grouping, resamples=0)
    fold = np.array([fold_of[clip] for clip in gold])
    found: dict[str, list[str]] = {}
    for k in sorted(set(fold_of.values())):
        # Scores are functions of the means over clips: here over those of the other folds.
        f1 = {s: score_means(exact_means(scores[s].columns[fold != k]))[3] for s in systems}
        best = max(f1, key=lambda s: f1[s])
        found |= {c: list(systems[best][c]) for c in gold if fold_of[c] == k}
    return {clip: found[clip] for clip in gold}


def cross_options(
    gold: Labels,
    parts: Sequence[Source],
    params: FusionParams,
    blocks: Mapping[str, str] | None,
    seed: int,
) -> dict[str, Any]:
    """Return the arguments of :func:`emolib.fusion.cross_predict` but gold and grouping."""
    outer, inner = _fold_counts(gold, params, blocks, seed)
    return {
        "preds": {s.title: s.labels for s in parts},
        "confidences": {s.title: s.confidences for s in parts if s.confidences},
        "settings": settings_of(params, inner, seed),
        "families": {s.title: s.family for s in parts if s.family},
        "blocks": blocks,
        "outer": outer,
        "seed": seed,
    }


def settings_of(params: FusionParams, inner: int, seed: int) -> fusion.FusionSettings:
    """Return the settings that parameters stand for, with so many inner folds."""
    return fusion.FusionSettings(
        objective=params.objective,
        precision_weight=params.precision_weight,
        cap=params.cap or None,
        price=params.price,
        add=params.add,
        similar=params.similar,
        folds=inner,
        seed=seed,
    )


def _listed(parts: Sequence[Source]) -> str:
    """Name systems; those of one model together."""
    outputs: dict[str, list[str]] = {}
    for source in parts:
        outputs.setdefault(source.family or source.title, []).append(source.title)
    return ", ".join(
        titles[0] if len(titles) == 1 else f"{name} ({len(titles)} outputs)"
        for name, titles in outputs.items()
    )


def chosen(sources: Mapping[str, Source], params: FusionParams) -> list[Source]:
    """Return the sources that are fused.

    Raises:
        ScoreError: there is none.
    """
    parts = [sources[key] for key in select(params.systems, sources)]
    if not parts:
        raise ScoreError(
            f"fusion.systems: none of {list(params.systems)} was run, only {list(sources)}"
        )
    return parts


def calibrated(
    gold: Labels,
    parts: Sequence[Source],
    params: FusionParams,
    groupings: Sequence[object],
    blocks: Mapping[str, str] | None,
    seed: int,
) -> fusion.CrossFusion:
    """Fuse by calibrated fusion alone; arguments as for :func:`fuse`, of the parts given."""
    options = cross_options(gold, parts, params, blocks, seed)
    return fusion.cross_predict(gold, grouping=groupings, **options)


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
