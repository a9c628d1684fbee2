"""The steps of notebook 07 behind its cells: judges, comparisons, studies and the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib import tables
from emolib.cojudge import co_judge
from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.fusion.candidates import Labels
from emolib.ledger import Ledger
from emolib.params.stages import FusionAnalysis
from emolib.predict import Prediction
from emolib.scoring import Comparison, Grouping, Score, score
from emolib.strategies.explain import compare_all, looked_at, pairs
from emolib.strategies.fuse import CONCAT, MAJORITY, SINGLE, Fused, fuse_sets, left_out, usable
from emolib.strategies.sources import Source
from emolib.strategies.studies import (
    Point,
    clips_curve,
    curve_table,
    enough_clips,
    sets_table,
    sources_curve,
    transfer,
    transfer_table,
)


def judged_by(
    cfg: FusionAnalysis, fused: Fused, clips: Sequence[Clip], ledger: Ledger
) -> dict[str, list[Prediction]]:
    """Ask every language model of ``cfg.co_judges``, one open at a time.

    Returns:
        "LLM co-judge: NAME" -> one prediction per clip, see :func:`emolib.cojudge.co_judge`.
    """
    subtitles = {clip.name: clip.subtitle or "" for clip in clips}
    cache = Path(cfg.outputs) / "models"
    judged = {}
    for name in cfg.co_judges:
        title = f"LLM co-judge: {name}"
        with open_engine(cfg.models[name], name=name, cache=cache, cluster=cfg.cluster) as engine:
            judged[title] = co_judge(
                *(fused.systems, engine, ledger),
                system=title,
                subtitles=subtitles,
                grouping=fused.group_of.grouping,
            )
    return judged


def score_tables(
    graded: Mapping[str, Mapping[str, Score]], systems: Mapping[str, Labels], first: str
) -> list[dict[str, Any]]:
    """Table 2 under the first grouping, systems and rules apart, and all under the others."""
    scores = graded[first]
    rules = [name for name in scores if name not in systems]
    return [
        tables.score_table("Table 2 (ours): systems", {name: scores[name] for name in systems}),
        tables.score_table("Table 2 (ours): fusion", {name: scores[name] for name in rules}),
        *(
            tables.score_table(f"Systems and fusion, {name}", found)
            for name, found in graded.items()
            if name != first
        ),
    ]


def compare_under(
    graded: Mapping[str, Mapping[str, Score]], fused: Fused, first: str, **tests: int
) -> tuple[dict[str, Comparison], list[str], list[dict[str, Any]]]:
    """Compare rules with one another and with constant-prediction baselines, by grouping.

    Returns:
        Comparisons and notes under the first grouping, and the tables of all groupings.
    """
    compared = {
        name: compare_all(pairs(fused, found), tests["resamples"], tests["seed"])
        for name, found in graded.items()
    }
    made = [
        tables.comparison_table(f"Paired differences between rules and systems, {name}", found)
        for name, (found, _) in compared.items()
    ]
    made += [
        tables.constant_table(
            f"Against the best constant lists, {name}",
            {x: found[x] for x in looked_at(fused)},
            **tests,
        )
        for name, found in graded.items()
    ]
    return *compared[first], made


def ablation(
    gold: Labels,
    sources: Mapping[str, Source],
    cfg: FusionAnalysis,
    fused: Fused,
    whole: Score,
    grouping: Grouping,
    options: Mapping[str, Any],
) -> tuple[dict[str, Comparison], list[str], dict[str, Any]]:
    """Compare calibrated fusion without each source with that of all (``whole``).

    Returns:
        Comparisons by the source left out, notes, and their table.
    """
    without = left_out(gold, sources, cfg.fusion, **options)
    less = {
        f"without {name}": score(gold, rows, grouping, resamples=0)
        for name, rows in without.items()
    }
    ablated, notes = compare_all(
        [(one, whole, name) for name, one in less.items()], cfg.resamples, cfg.seed
    )
    title = "Calibrated fusion without one source, minus calibrated fusion with all"
    return ablated, notes, tables.comparison_table(title, ablated)


@dataclass(frozen=True, slots=True)
class Studies:
    """What calibrated fusion depends on.

    Attributes:
        tables: Sets of systems, transfer between groupings, learning curves; none that is empty.
        notes: What could not be fitted or was not there.
        by_clips: Learning curve over labelled clips.
        by_sources: Learning curve over sources.
    """

    tables: list[dict[str, Any]]
    notes: list[str]
    by_clips: list[Point]
    by_sources: list[Point]

    def to_json(self) -> dict[str, Any]:
        """Return the curves as plain values."""
        return {
            "clips": [point.to_json() for point in self.by_clips],
            "sources": [point.to_json() for point in self.by_sources],
            "certain_from": enough_clips(self.by_clips),
        }


def studies(
    gold: Labels,
    sources: Mapping[str, Source],
    cfg: FusionAnalysis,
    fused: Fused,
    best: Labels,
    groupings: Sequence[Grouping],
    blocks: Mapping[str, str],
) -> Studies:
    """Fuse further sets of systems, under each grouping, on fewer clips and from fewer sources.

    Args:
        gold: Clip -> reference labels.
        sources: Systems.
        cfg: What is studied.
        fused: What every rule makes of all systems.
        best: Labels of its best rule.
        groupings: Groupings of the scores.
        blocks: Clips that must not be parted.
    """
    options: dict[str, Any] = {"groupings": groupings, "blocks": blocks, "seed": cfg.seed}
    tests = {"resamples": cfg.resamples, "seed": cfg.seed}
    sets, notes = fuse_sets(gold, sources, cfg.sets, cfg.fusion, **options)
    fitted: Mapping[str, Labels] = transfer(gold, sources, cfg.fusion, **options)
    rivals = {r: fused.labels[r] for r in (CONCAT, MAJORITY, SINGLE) if r in fused.labels}
    shared: dict[str, Any] = {"blocks": blocks, "grouping": usable(groupings)[0], **tests}
    by_clips, unfitted = clips_curve(gold, sources, cfg.fusion, cfg.curves, **shared)
    by_sources, more = sources_curve(gold, sources, cfg.fusion, cfg.curves, **shared)
    made = [
        sets_table("Sets of systems", gold, sets, groupings, **tests),
        transfer_table(
            "Calibrated fusion fitted and scored under each grouping",
            gold,
            {**fitted, "all": best} if fitted else {},
            rivals,
            groupings,
            **tests,
        ),
        curve_table("Labelled clips that calibrated fusion is fitted on", by_clips, "clips"),
        curve_table("Sources that are fused", by_sources, "sources"),
    ]
    kept = [one for one in made if one["rows"]]
    return Studies(kept, [*notes, *unfitted, *more], by_clips, by_sources)
