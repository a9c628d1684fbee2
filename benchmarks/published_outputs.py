"""Calibrated fusion of published outputs of real models on MER2024-OV's 332 clips.

The first results of the README and of docs/fusion.md: what ten multimodal LLMs and AffectGPT-2025
answered, as published (labels read out by Qwen2.5-7B), fused by every rule of notebook 07 with the
parameters of profile `published`, out-of-fold, and scored under the lexicon, the official emotion
wheels of 2026 (level 1), equal spelling and the released GPT-3.5 groups. Also: fitted under one
grouping and scored under the others, without each source, and learning curves over labelled clips
and over sources.

Settings were chosen on one half of the clips, decided by the clip's name (`fusion_study.held_out`),
with nested cross-validation inside that half; the other half is reported apart.

Run:  python benchmarks/published_outputs.py [--outputs DIR] [--gold DIR] [--wheels DIR]
      [--texts DIR] [--groups ZIP] [--out FILE] [--figures DIR] [--docs FILE]; the defaults are
      the places of profile `published`. Two processes; without models. --docs puts the tables of
      the record in the place of those of docs/fusion.md.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes share the cores

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fusion_study import complete, held_out
from matplotlib.figure import Figure
from published_baselines import difference

from emolib import fusion, predict, scoring, strategies
from emolib.datasets.open import open_dataset
from emolib.files import write_atomic, write_json
from emolib.fusion.candidates import Labels
from emolib.params.profiles import resolve
from emolib.params.stages import FusionAnalysis
from emolib.plots import fusion as plots
from emolib.scoring import Grouping, Score
from emolib.scoring.cached import CachedGrouping

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/published_outputs.py"
ALL = "all outputs and the text model"
METRICS = ("accuracy", "recall", "avg", "f1", "labels_per_clip")
TITLES = {"lexicon": "lexicon groups", "ew2026": "emotion wheels of 2026, level 1"}
SCORED = {**TITLES, "exact": "equal spelling", "released_groups": "released GPT-3.5 groups"}
BEGIN, END = "<!-- record: published.json -->", "<!-- end of the record -->"
RIVALS = (strategies.CONCAT, strategies.MAJORITY, strategies.SINGLE)
# Every configuration that was scored on all 332 clips, before and with this record.
LOOKS = {
    "before this study": "calibrated fusion of nine systems and of all 31 outputs with the "
    "settings of version 0.1, once through one wheel's mapping, with two objectives: 4 "
    "configurations",
    "development": "about 95 configurations (features, regression on all votes, list lengths, "
    "groupings, ensembles, text models) on the 175 clips of the working half alone, with nested "
    "cross-validation inside it",
    "all 332 clips": "two configurations of all systems: first with a text model of the English "
    "transcripts (F1 0.667, level-1 F 0.749), then as recorded here, of the Chinese ones, which "
    "tell the six classes better; the sets with one output of each model were scored with two "
    "variants, the subtitle in the prompt and added later",
}


@dataclass
class Study:
    """What every job reads; inherited by forked processes."""

    cfg: FusionAnalysis
    gold: Labels
    sources: dict[str, strategies.Source]
    transcripts: dict[str, str]
    blocks: dict[str, str]
    groupings: list[Grouping]
    notes: list[str] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the fusing functions."""
        return {"groupings": self.groupings, "blocks": self.blocks, "seed": self.cfg.seed}

    @property
    def tests(self) -> dict[str, int]:
        """Arguments of the testing functions."""
        return {"resamples": self.cfg.resamples, "seed": self.cfg.seed}


study: Study


def opened(args: argparse.Namespace) -> Study:
    """Read the profile's parameters and all files."""
    cfg = resolve(ROOT, "published", "07_fusion_analysis")
    assert cfg.released is not None
    assert cfg.text_data is not None
    cfg = cfg.model_copy(
        update={
            "data": cfg.data.model_copy(update={"root": str(args.gold)}),
            "released": cfg.released.model_copy(update={"root": str(args.outputs)}),
            "text_data": cfg.text_data.model_copy(update={"root": str(args.texts)}),
            "wheels": str(args.wheels),
        }
    )
    clips = [clip for clip in open_dataset(cfg.data, Path(cfg.outputs)) if clip.labels]
    gold = predict.gold_labels(clips)
    others, missing = strategies.read_published(cfg, clips)
    text, transcripts, about = strategies.read_text(cfg, gold)
    groupings, lost = scoring.open_with_wheels(cfg.grouping, cfg.groups, cfg.wheels)
    blocks = strategies.blocks_of(clips, transcripts)
    notes = [*missing, *about, *lost, strategies.blocks_note(clips, blocks)]
    return Study(cfg, gold, {**others, **text}, transcripts, blocks, groupings, notes)


def rules(name: str) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Grouping of the score -> rule -> labels, of one set of systems.

    Majority and the best single system are those of the grouping that is scored.
    """
    systems = study.cfg.fusion.systems if name == ALL else study.cfg.sets[name]
    params = study.cfg.fusion.model_copy(update={"systems": tuple(systems)})
    fused = strategies.fuse(study.gold, study.sources, params, **study.options)
    found = {}
    for one in study.groupings:
        own = dict(fused.labels)
        if one is not study.groupings[0]:
            own[strategies.MAJORITY] = fusion.majority(fused.systems, grouping=one)
            if fused.cross is not None:
                own[strategies.SINGLE] = strategies.best_single(
                    study.gold, fused.systems, fused.cross.fold_of, one
                )
        found[one.name] = own
    return found


def fused(sources: Mapping[str, strategies.Source], groupings: Sequence[Grouping]) -> Labels:
    """Labels of calibrated fusion of some sources under some groupings."""
    cfg = study.cfg
    parts = strategies.chosen(sources, cfg.fusion)
    found = strategies.calibrated(study.gold, parts, cfg.fusion, groupings, study.blocks, cfg.seed)
    return found.labels


def fitted_under(name: str) -> Labels:
    """Labels of all systems, fused under one grouping alone."""
    under = {one.name: one for one in (*study.groupings, scoring.open_grouping("exact"))}
    return fused(study.sources, [under[name]])


def without(gone: str) -> Labels:
    """Labels of all sources but one."""
    kept = {k: s for k, s in study.sources.items() if (s.family or s.title) != gone}
    return fused(kept, study.groupings)


def curve(which: str) -> tuple[list[strategies.Point], list[str]]:
    """One learning curve, fitted and scored under the first grouping."""
    make = {"clips": strategies.clips_curve, "sources": strategies.sources_curve}[which]
    return make(
        *(study.gold, study.sources, study.cfg.fusion, study.cfg.curves),
        grouping=study.groupings[0],
        blocks=study.blocks,
        **study.tests,
    )


def rounded(value: Any) -> Any:
    """Numbers with four decimals, in whatever holds them."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def row(score: Score) -> dict[str, Any]:
    """One system or rule under one grouping."""
    values = {metric: getattr(score, metric) for metric in METRICS}
    return {**values, "ci95_f1": score.ci95["f1"]}


def scored(
    labels: Mapping[str, Labels], grouping: Grouping, clips: Sequence[str] | None = None
) -> dict[str, Score]:
    """Scores of several systems, on all clips or some."""
    names = list(study.gold) if clips is None else clips
    part = {s: {c: rows[c] for c in names} for s, rows in labels.items()}
    gold = {c: study.gold[c] for c in names}
    return scoring.score_systems(gold, part, grouping, **study.tests)


def leads(scores: Mapping[str, Score], name: str = strategies.OURS) -> dict[str, Any]:
    """Calibrated fusion against the other rules and the constant-prediction baselines."""
    found = {
        rule: difference(scoring.compare(scores[name], scores[rule], **study.tests))
        for rule in RIVALS
        if rule in scores
    }
    constants = scoring.against_constants(scores[name], **study.tests)
    return {"minus": found, "minus_constant": {k: difference(x) for k, x in constants.items()}}


def table(
    labels: Mapping[str, Labels], grouping: Grouping, clips: Sequence[str] | None = None
) -> dict[str, Any]:
    """Every rule under one grouping, and what calibrated fusion leads by."""
    scores = scored(labels, grouping, clips)
    best = scores[strategies.OURS].constant_list
    return {
        "n": scores[strategies.OURS].n,
        "rules": {rule: row(score) for rule, score in scores.items()},
        **leads(scores),
        "constant": {
            kind: {m: best_of[m] for m in METRICS[:4]} | {"labels": len(best_of["labels"])}
            for kind, best_of in (
                *(("any_length", best), ("same_length", best["same_length"])),
                ("best_f1", best["best_f1"]),
            )
        },
    }


def figures(
    folder: Path,
    systems: Mapping[str, Mapping[str, Score]],
    by_rule: Mapping[str, Mapping[str, Score]],
    curves: Mapping[str, Sequence[strategies.Point]],
) -> None:
    """Draw the figures of the README and of docs/fusion.md."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9.2, 6.2), layout="constrained", facecolor="white")
    for (name, scores), ax in zip(by_rule.items(), figure.subplots(1, 2), strict=True):
        kinds = strategies.kinds(study.sources, systems[name])
        chosen = {rule: scores[rule] for rule in (*RIVALS, strategies.OURS)}
        plots.operating_points(kinds, chosen, ax)
        ax.set(xlim=(0.1, 0.9), ylim=(0.1, 1.03))
        ax.set_title(f"{TITLES[name]}, n = {scores[strategies.OURS].n}", fontsize=10)
    _save(figure, folder / "published_outputs.png")
    figure = Figure(figsize=(9.2, 3.6), layout="constrained", facecolor="white")
    counted = {"clips": "labeled clips", "sources": "sources (models with all their outputs)"}
    for (which, points), ax in zip(curves.items(), figure.subplots(1, 2), strict=True):
        plots.learning_curve(points, ax, counted[which])
        ax.set_title(f"lexicon groups, n = {len(study.gold)}", fontsize=10)
    _save(figure, folder / "published_curves.png")


def _save(figure: Figure, path: Path) -> None:
    """Write a figure, with the same bytes from the same numbers."""
    figure.savefig(path, dpi=140, bbox_inches="tight", metadata={"Software": None})


def measured(each: Callable[..., Any], groups: Path) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Everything, and what the figures need."""
    gold, sources = study.gold, study.sources
    names = [ALL, *study.cfg.sets]
    fits = [*(one.name for one in study.groupings), "exact"]
    units = list(dict.fromkeys(s.family or s.title for s in sources.values()))
    # The longest jobs first.
    jobs = [(rules, names[0]), (curve, "clips"), (curve, "sources"), *((without, x) for x in units)]
    jobs += [*((rules, x) for x in names[1:]), *((fitted_under, x) for x in fits)]
    results = each(_run, jobs)
    done = {(job.__name__, name): found for (job, name), found in zip(jobs, results, strict=True)}
    sets = {name: done["rules", name] for name in names}
    curves = {which: done["curve", which][0] for which in ("clips", "sources")}
    not_fitted = [line for which in curves for line in done["curve", which][1]]

    first = study.groupings[0].name
    titles = {s.title: s.labels for s in sources.values()}
    systems = {one.name: scored(titles, one) for one in study.groupings}
    by_rule = {one.name: scored(sets[ALL][one.name], one) for one in study.groupings}
    main: dict[str, Labels] = sets[ALL][first]
    transferred = {f"fit {name}": done["fitted_under", name] for name in fits}
    transferred["fit " + " + ".join(one.name for one in study.groupings)] = main[strategies.OURS]
    rivals = {rule: main[rule] for rule in RIVALS}
    others = {one.name: one for one in study.groupings} | {"exact": scoring.open_grouping("exact")}
    share = None
    if groups.exists():
        every = [gold, *transferred.values(), *rivals.values()]
        released, share = complete(CachedGrouping.read(groups), list(gold), every)
        others["released_groups"] = released
    transfer: dict[str, Any] = {}
    for name, grouping in others.items():
        scores = scored({**transferred, **rivals}, grouping)
        transfer[name] = {fit: row(scores[fit]) | leads(scores, fit) for fit in transferred} | {
            rule: row(scores[rule]) for rule in RIVALS
        }
    under_all = list(transferred)[-1]
    survives = [
        rule
        for rule in RIVALS
        if all(x[under_all]["minus"][rule]["f1"]["ci95"][0] > 0 for x in transfer.values())
    ]
    lost = {gone: done["without", gone] for gone in units}
    alone = {
        one.name: {
            gone: row(score)
            | {
                "minus_all": difference(
                    scoring.compare(score, by_rule[one.name][strategies.OURS], **study.tests)
                )
            }
            for gone, score in scored(lost, one).items()
        }
        for one in study.groupings
    }
    halves = {"working": [c for c in gold if not held_out(c)]}
    halves["held_out"] = [c for c in gold if held_out(c)]
    result = {
        "n": len(gold),
        "notes": study.notes,
        "settings": study.cfg.fusion.model_dump(mode="json"),
        "groupings": {
            name: {"version": one.version} for name, one in others.items() if name != "exact"
        },
        "labels_put_into_released_groups_by_the_lexicon": share,
        "looks": LOOKS,
        "systems": {
            title: {name: row(scores[title]) for name, scores in systems.items()}
            for title in titles
        },
        "sets": {
            name: {
                "systems": _chosen(name),
                **{one.name: table(found[one.name], one) for one in study.groupings},
            }
            for name, found in sets.items()
        },
        "halves": {
            half: {one.name: table(sets[ALL][one.name], one, clips) for one in study.groupings}
            for half, clips in halves.items()
        },
        "transfer": {"scored_under": transfer, "lead_survives_all_groupings_over": survives},
        "without": alone,
        "curves": {
            **{which: [point.to_json() for point in points] for which, points in curves.items()},
            "not_fitted": not_fitted,
            "certainly_above_majority_from": strategies.enough_clips(curves["clips"]),
        },
    }
    return rounded(result), (systems, by_rule, curves)


def _chosen(name: str) -> list[str]:
    systems = study.cfg.fusion.systems if name == ALL else study.cfg.sets[name]
    return [study.sources[key].title for key in strategies.select(systems, study.sources)]


def _run(job: tuple[Callable[[str], Any], str]) -> Any:
    return job[0](job[1])


def markdown(record: Mapping[str, Any]) -> list[str]:
    """Tables of docs/fusion.md, from a record; the same from memory and from the file."""
    sets = {name: record["sets"][name] for name in sorted(record["sets"], key=_all_first)}
    first, *others = [name for name in TITLES if name in sets[ALL]]
    rows = []
    for name, found in sets.items():
        for rule in (*RIVALS, strategies.OURS):
            one = found[first]["rules"][rule]
            cells = [f"{name} ({len(found['systems'])})", rule, f"{one['labels_per_clip']:.1f}"]
            cells += [f"{one[metric]:.3f}" for metric in ("accuracy", "recall")]
            for grouping in (first, *others):
                one = found[grouping]["rules"][rule]
                low, high = one["ci95_f1"]
                cells.append(f"{one['f1']:.3f} [{low:.3f}, {high:.3f}]")
                cells.append(_lead(found[grouping]["minus"].get(rule)))
            rows.append(cells)
    head = ["set (systems)", "rule", "labels per clip", "accuracy", "recall"]
    for grouping in (first, *others):
        head += [f"F1, {TITLES[grouping]}", "Δ F1"]
    made = [
        f"Sets of systems, n = {record['n']}. Δ F1: calibrated fusion minus the rule, paired, with "
        "its 95 % interval. Accuracy, recall and labels under the lexicon; majority and the best "
        "single system are those of the grouping that is scored.",
        _table(head, rows),
    ]
    scored = {g: x for g in SCORED if (x := record["transfer"]["scored_under"].get(g))}
    fits = sorted((fit for fit in scored[first] if fit.startswith("fit ")), key=len)
    rows = [
        [
            row.replace("fit ", "calibrated fusion, fitted under "),
            *(f"{found[row]['f1']:.3f}" for found in scored.values()),
            f"{scored[first][row]['labels_per_clip']:.1f}",
        ]
        for row in (*RIVALS, *fits)
    ]
    made += [
        f"Transfer: F1 of {ALL} under each grouping, whatever it was fitted for. Fitted under "
        f"{' and '.join((first, *others))}, calibrated fusion leads with a paired interval above "
        f"zero under all {len(scored)} groupings over: "
        f"{', '.join(record['transfer']['lead_survives_all_groupings_over']) or 'none'}.",
        _table(["rule", *(SCORED[name] for name in scored), "labels per clip"], rows),
    ]
    rows = []
    for half in ("working", "held_out"):
        for grouping in (first, *others):
            one = record["halves"][half][grouping]
            leads = [_lead(one["minus"][rule]) for rule in RIVALS]
            f1 = f"{one['rules'][strategies.OURS]['f1']:.3f}"
            cells = [half.replace("_", "-"), str(one["n"]), TITLES[grouping], f1]
            rows.append([*cells, *leads])
    made += [
        f"The two halves of the clips, {ALL}; settings were chosen on the working half.",
        _table(["half", "n", "grouping", "F1", *(f"minus {rule}" for rule in RIVALS)], rows),
    ]
    rows = []
    for gone in sorted(record["without"][first]):
        rows.append([gone])
        for grouping in (first, *others):
            one = record["without"][grouping][gone]
            rows[-1] += [f"{one['f1']:.3f}", _lead(one["minus_all"])]
    head = ["without"]
    for grouping in (first, *others):
        head += [f"F1, {TITLES[grouping]}", "minus with all"]
    made += ["Calibrated fusion without one source.", _table(head, rows)]
    rows = [
        [
            *(which, str(one["number"]), str(one["choices"]), f"{one['f1']['mean']:.3f}"),
            f"{one['f1']['lowest']:.3f} to {one['f1']['highest']:.3f}",
            f"{one['majority']:.3f}",
            _lead(one["minus_majority"]),
        ]
        for which in ("clips", "sources")
        for one in record["curves"][which]
    ]
    head = ["of", "number", "choices", "F1, mean", "lowest to highest", "majority", "Δ F1"]
    made += [
        "![Learning curves over labeled clips and over sources](figures/published_curves.png)",
        "Learning curves, fitted and scored under the lexicon: the line is the mean over random "
        "choices, the band goes from the lowest to the highest; filled points are above majority "
        "of the same systems with a paired interval above zero.",
        _table(head, rows),
        "Looks at the data. " + " ".join(f"{x[0].upper()}{x[1:]}." for x in _looks(record)),
    ]
    return made


def _all_first(name: str) -> tuple[bool, str]:
    return name != ALL, name


def _looks(record: Mapping[str, Any]) -> list[str]:
    return [f"{when}: {record['looks'][when]}" for when in LOOKS]


def _lead(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    one = found.get("f1", found)
    low, high = one["ci95"]
    return f"{one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    global study
    tools = ROOT / "data/MERTools"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outputs", type=Path, default=ROOT / "data/AffectGPT")
    parser.add_argument("--gold", type=Path, default=tools / "MER2024")
    parser.add_argument(
        "--wheels", type=Path, default=tools / "MER2026/MER2026_Track2/emotion_wheel"
    )
    parser.add_argument(
        "--texts", type=Path, default=tools / "MERBench/dataset/mer2023-dataset-process"
    )
    parser.add_argument(
        "--groups", type=Path, default=tools / "MER2024/ov_store/openset-synonym.zip"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/record/published.json")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs/figures")
    parser.add_argument("--docs", type=Path, help="page whose tables are replaced")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    study = opened(args)
    print(*study.notes, sep="\n", flush=True)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("fork")) as pool:
        result, shown = measured(pool.map, args.groups)
    record = {"command": COMMAND, **result}
    write_json(args.out, record)
    if args.docs:
        before, begin, rest = args.docs.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            raise SystemExit(f"{args.docs}: no {BEGIN} and {END} in it")
        write_atomic(args.docs, before + "\n\n".join([begin, *markdown(record), end]) + after)
    figures(args.figures, *shown)
    for name, found in result["sets"].items():
        for grouping in (one.name for one in study.groupings):
            for rule, one in found[grouping]["rules"].items():
                shown = ", ".join(f"{metric} {one[metric]:.3f}" for metric in METRICS)
                print(f"{name} | {grouping} | {rule} | {shown}")


if __name__ == "__main__":
    main()
