"""Published outputs of other models on MER2024-OV's 332 clips: scores, readings, subtitles.

The numbers of docs/baselines.md, "Published outputs of other models": every output under the
lexicon and the emotion wheels of 2026, labels read by Qwen2.5-7B (published with the outputs) and
without a model; what a subtitle is worth, paired over the variants of each model; and level-1 F of
AffectGPT-2025 with the official parser, which an independent count agrees with.

Run:  python benchmarks/published_baselines.py [--outputs DIR] [--gold FILE] [--wheels DIR]
      [--out FILE] [--docs FILE]; the defaults are the places of profile `published`. --docs puts
      the tables of the record in the place of those of docs/baselines.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emolib import predict, scoring
from emolib.baselines import released
from emolib.datasets.clip import Clip
from emolib.files import write_atomic, write_json
from emolib.scoring import Comparison, Score
from emolib.scoring.files import read_labels

TOOLS = Path("data/MERTools")
RESAMPLES = 10_000
BEGIN, END = "<!-- record: published_baselines.json -->", "<!-- end of the record -->"
GROUPINGS = {"lexicon": "lexicon", "ew2026": "wheels of 2026, level 1"}
METRICS = ("accuracy", "recall", "avg", "f1")


def row(score: Score) -> dict[str, Any]:
    """One output under one reading."""
    found: dict[str, Any] = {metric: getattr(score, metric) for metric in METRICS}
    found |= {f"ci95_{metric}": score.ci95[metric] for metric in ("avg", "f1")}
    return found | {"labels_per_clip": score.labels_per_clip}


def difference(found: Comparison) -> dict[str, Any]:
    """One paired difference."""
    return {
        metric: {
            "difference": found.difference[metric],
            "ci95": found.ci95[metric],
            "p": found.p_permutation[metric],
        }
        for metric in ("avg", "f1")
    }


def effects(
    found: tuple[Mapping[str, Comparison], Mapping[str, Comparison]],
) -> dict[str, dict[str, Any]]:
    """Single comparisons and their means."""
    return {
        kind: {name: difference(one) for name, one in comparisons.items()}
        for kind, comparisons in zip(("each", "means"), found, strict=True)
    }


def markdown(record: Mapping[str, Any]) -> list[str]:
    """The tables of docs/baselines.md, which a test compares with it.

    F1 by model and variant, labels by Qwen2.5-7B / without a model; and the mean differences.
    """
    made = []
    variants = [variant for variant, _ in released.VARIANTS.values()]
    for grouping in GROUPINGS:
        found = record["groupings"][grouping]
        both = found["labels_by_qwen"], found["labels_without_a_model"]
        lines = [
            f"| F1, {GROUPINGS[grouping]}, n = {record['n']} | "
            f"{' | '.join(words for _, words in released.VARIANTS.values())} |",
            "|---" * (len(variants) + 1) + "|",
        ]
        models = sorted({key.partition("/")[0] for key in both[0]}, key=str.casefold)
        for model in models:
            if f"{model}/{variants[0]}" in both[0]:
                cells = [
                    " / ".join(f"{own[f'{model}/{v}']['f1']:.3f}" for own in both) for v in variants
                ]
                lines.append(f"| {model} | {' | '.join(cells)} |")
        epochs = [key for key in both[0] if "/epoch_" in key]
        spans = [sorted(own[key]["f1"] for key in epochs) for own in both]
        span = " / ".join(f"{values[0]:.3f} to {values[-1]:.3f}" for values in spans)
        lines.append(f"| {released.AFFECTGPT}, {len(epochs)} epochs | {span} | | |")
        best = found["constant_best_f1"]
        named = ", ".join(best["labels"])
        lines.append(f"| constant-prediction baseline ({named}) | {best['f1']:.3f} | | |")
        made.append("\n".join(lines))
    lines = [
        f"| paired difference in F1 | {' | '.join(GROUPINGS.values())} |",
        "|---" * (len(GROUPINGS) + 1) + "|",
    ]
    for kind, said in (("subtitle", ""), ("reading", "without a model - by Qwen2.5-7B: ")):
        means = [record["groupings"][grouping][kind]["means"] for grouping in GROUPINGS]
        for name in sorted(means[0], reverse=True):
            cells = []
            for one in (found[name]["f1"] for found in means):
                low, high = one["ci95"]
                cells.append(f"{one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")
            lines.append(f"| {said}{name} | {' | '.join(cells)} |")
    return [*made, "\n".join(lines)]


def main() -> None:
    """Score everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outputs", type=Path, default=Path("data/AffectGPT"))
    parser.add_argument("--gold", type=Path, default=TOOLS / "MER2024/ov_store/check-openset.csv")
    wheels = TOOLS / "MER2026/MER2026_Track2/emotion_wheel"
    parser.add_argument("--wheels", type=Path, default=wheels)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--docs", type=Path)
    args = parser.parse_args()

    others = released.read_released(args.outputs)
    gold = read_labels(args.gold).labels
    clips = [Clip(name=name, video=Path(), labels=labels) for name, labels in gold.items()]
    said = released.described(others, clips) | released.labelled(others, clips)
    labels = {rows[0].system: predict.labels_of(rows, gold) for rows in said.values()}
    record: dict[str, Any] = {
        "command": "python benchmarks/published_baselines.py",
        "n": len(gold),
        "resamples": RESAMPLES,
        "missing": others.missing,
        "groupings": {},
    }
    for grouping in (
        scoring.open_grouping("lexicon"),
        scoring.open_grouping("ew2026", None, args.wheels),
    ):
        scores = scoring.score_systems(gold, labels, grouping, resamples=RESAMPLES)
        read = released.readings(others, scores)
        reader, rules = read[released.BY_READER], read[""]
        record["groupings"][grouping.name] = {
            "version": grouping.version,
            "labels_by_qwen": {key: row(score) for key, score in reader.items()},
            "labels_without_a_model": {key: row(score) for key, score in rules.items()},
            "constant_best_f1": next(iter(reader.values())).constant_list["best_f1"],
            "reading": effects(released.reading_effects(others, rules, reader)),
            "subtitle": effects(released.subtitle_effects(others, reader)),
        }
    official = released.read_released(
        args.outputs, models=[released.AFFECTGPT], parser="mer2025"
    ).systems
    record["level_1_f_with_the_official_parser"] = {
        key: scoring.score(
            gold, {name: system.labels[name] for name in gold}, grouping, resamples=0
        ).f1
        for key, system in official.items()
    }
    print(*markdown(record), sep="\n\n")
    if args.out:
        write_json(args.out, record)
    if args.docs:
        before, begin, rest = args.docs.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            raise SystemExit(f"{args.docs}: no {BEGIN} and {END} in it")
        write_atomic(args.docs, before + "\n\n".join([begin, *markdown(record), end]) + after)


if __name__ == "__main__":
    main()
