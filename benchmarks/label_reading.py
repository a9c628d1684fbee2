"""Label reading without a model, beside a language model's reading of the same descriptions.

What eight multimodal LLMs answered about the 332 clips of MER2024-OV, in three variants (24
outputs), and the labels that Qwen2.5-7B read out of these answers, as published with them.
``emolib.summaries.from_text`` reads the same answers; both readings are scored against the gold
labels. Level-1 F of the emotion wheels rewards long lists, so list length, the F1 of the lexicon
and the agreement of the two readings stand beside it, and "every word" (all emotion words of the
text, :func:`emolib.extraction.emotion_words`) shows what length alone brings.

Protocol, fixed before any description was read:

* Rules were developed on five models (``DEVELOPMENT``) and 232 of the clips.
* The other three models and the other 100 clips (those whose SHA-256 of "label_reading/NAME" comes
  first) were held out: neither read nor scored. :func:`outputs` gives them with ``--held-out``
  alone.
* ``looks`` in the record has one entry for each state of the reader that was scored on what was
  held out, by the hash of what it reads out of the development outputs. The first entry is the
  one that counts; every later change of the reader adds another look.

``before`` holds the same figures of version 0.1's reader, by this file in a checkout of the commit
that it names. AffectGPT-2025 answers with nothing but a list; it is reported apart, and so are the
human descriptions of EMER, which the rules for English were not developed on.

Agreement: F of the lexicon groups in both readings of a clip, mean over clips; 1 where both find
none. Intervals: bootstrap over clips, all outputs of a part together.

Run:  python benchmarks/label_reading.py --data DIR [--held-out] --out FILE
      DIR: ovmerd_outputs, mer2024_ov, emer and wheels/2026. Without --held-out, the figures of
      what was held out, ``looks`` and ``before`` stay as FILE has them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emolib import scoring
from emolib.extraction import emotion_words, extract_labels
from emolib.files import read_json, write_json
from emolib.labels import parse_labels
from emolib.scoring import Grouping, Score, lexicon, uncertainty
from emolib.scoring.files import read_labels
from emolib.scoring.openset import METRICS, score_means
from emolib.summaries import from_text, in_english

COMMAND = (
    "python benchmarks/label_reading.py --data data --held-out "
    "--out outputs/record/label_reading.json"
)
DEVELOPMENT = ("Chat-UniVi", "LLaMA-VID", "Otter", "SALMONN", "VideoChat")
HELD_OUT = ("Qwen-Audio", "Video-ChatGPT", "mPLUG-Owl")
HELD_OUT_CLIPS = 100
RESAMPLES = 10_000
F1 = METRICS.index("f1")
EMER_CLASSES = {
    "生气": "angry",
    "高兴": "happy",
    "担忧": "worried",
    "悲伤": "sad",
    "惊讶": "surprised",
}

Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Output:
    """What one model answered in one variant: clip -> description, clip -> labels by the LLM."""

    model: str
    variant: str
    texts: Mapping[str, str]
    read: Labels


def held_out_clips(names: Iterable[str]) -> frozenset[str]:
    """The clips that were held out."""

    def rank(name: str) -> str:
        return hashlib.sha256(f"label_reading/{name}".encode()).hexdigest()

    return frozenset(sorted(names, key=rank)[:HELD_OUT_CLIPS])


def outputs(data: Path, models: Sequence[str], clips: Iterable[str]) -> list[Output]:
    """The answers of these models about these clips, and of no other."""
    wanted = set(clips)
    found = []
    for model in models:
        variants: dict[str, dict[str, dict[str, str]]] = {}
        with (data / f"ovmerd_outputs/{model}.csv").open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                variant = row.get("variant") or f"epoch {row['epoch']}"
                if row["name"] in wanted:
                    variants.setdefault(variant, {})[row["name"]] = row
        found += [
            Output(
                model,
                variant,
                {name: row["description"] for name, row in rows.items()},
                {
                    name: in_english(parse_labels(row["openset"]).labels)  # nine are Chinese
                    for name, row in rows.items()
                },
            )
            for variant, rows in sorted(variants.items())
        ]
    return found


def groups(labels: Iterable[str]) -> frozenset[str]:
    return frozenset(lexicon.find(label).group for label in labels)


def agreement(first: Labels, second: Labels) -> float:
    """Mean over clips of the F of two readings' lexicon groups."""
    shares = []
    for name, labels in first.items():
        a, b = groups(labels), groups(second[name])
        shares.append(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)
    return float(np.mean(shares))


def missed(output: Output, ours: Labels) -> Counter[str]:
    """Lexicon groups that the LLM found and we did not, by where they stand in the text."""
    kinds: Counter[str] = Counter()
    for name, labels in output.read.items():
        text = output.texts[name]
        there = groups(emotion_words(text, "en").labels)
        for group in groups(labels) - groups(ours[name]):
            words = [label for label in labels if lexicon.find(label).group == group]
            if group in there:
                kinds["weaker statement"] += 1
            elif not any(word in text.lower() for word in words):
                kinds["inferred, not in the text"] += 1
            elif all(lexicon.find(word).rule == "unknown" for word in words):
                kinds["no emotion word of the lexicon"] += 1
            else:
                kinds["negated, quoted or of the scene"] += 1
    return kinds


def part(gold: Labels, found: Sequence[Output], wheels: Grouping) -> dict[str, Any]:
    """Both readings of some outputs against the gold labels, each output and their mean."""
    gold = {name: gold[name] for name in found[0].texts}
    words = scoring.open_grouping("lexicon")
    rows: dict[str, Any] = {}
    pairs: dict[str, list[tuple[Score, Score]]] = {"level1": [], "lexicon": []}
    kinds: Counter[str] = Counter()
    for output in found:
        readings = {
            "llm": output.read,
            "ours": {name: from_text(text)[0] for name, text in output.texts.items()},
            "every_word": {
                name: emotion_words(text, "en").labels for name, text in output.texts.items()
            },
        }
        row: dict[str, Any] = {}
        scores: dict[str, list[Score]] = {}
        for name, labels in readings.items():
            own = scores[name] = [
                scoring.score(gold, labels, g, resamples=0) for g in (wheels, words)
            ]
            row[name] = {
                "level1_f": round(own[0].f1, 4),
                "lexicon_f1": round(own[1].f1, 4),
                "labels_per_clip": round(own[1].labels_per_clip, 2),
                "clips_without_labels": sum(not x for x in labels.values()),
            }
        for i, which in enumerate(pairs):
            pairs[which].append((scores["llm"][i], scores["ours"][i]))
            key = {"level1": "level1_f", "lexicon": "lexicon_f1"}[which]
            row[f"gap_{which}"] = round(scores["ours"][i].f1 - scores["llm"][i].f1, 4)
            assert abs(row["ours"][key] - row["llm"][key] - row[f"gap_{which}"]) < 2e-4
        row["agreement"] = round(agreement(output.read, readings["ours"]), 4)
        kinds += missed(output, readings["ours"])
        rows[f"{output.model}, {output.variant}"] = row
    mean = {
        name: {
            key: round(float(np.mean([row[name][key] for row in rows.values()])), 4)
            for key in ("level1_f", "lexicon_f1", "labels_per_clip", "clips_without_labels")
        }
        for name in ("llm", "ours", "every_word")
    }
    result: dict[str, Any] = {"n": len(gold), "outputs": len(rows), "mean": mean}
    for which, both in pairs.items():
        result[f"gap_{which}"] = mean_gap(both)
        result[f"lowest_gap_{which}"] = min(row[f"gap_{which}"] for row in rows.values())
    agreements = [row["agreement"] for row in rows.values()]
    result["agreement"] = round(float(np.mean(agreements)), 4)
    result["missed_groups"] = dict(kinds.most_common())
    return result | {"rows": rows}


def mean_gap(pairs: Sequence[tuple[Score, Score]]) -> dict[str, Any]:
    """Mean over outputs of ours minus the LLM's F, with its interval over clips."""
    columns = [score.columns for pair in pairs for score in pair]
    width = columns[0].shape[1]

    def statistic(means: np.ndarray) -> np.ndarray:
        f = [
            score_means(means[..., i : i + width])[..., F1]
            for i in range(0, means.shape[-1], width)
        ]
        gaps = [ours - llm for llm, ours in zip(f[::2], f[1::2], strict=True)]
        return np.mean(gaps, axis=0)[..., None]

    found = uncertainty.bootstrap(np.hstack(columns), statistic, RESAMPLES, seed=0)
    return {
        "mean": round(float(found.estimate[0]), 4),
        "ci95": [round(float(x), 4) for x in found.percentile[0]],
    }


def affectgpt(gold: Labels, found: Sequence[Output], wheels: Grouping) -> dict[str, Any]:
    """AffectGPT-2025, whose answers are lists already: labels that only one reading has."""
    rows = {}
    for output in found:
        ours = {name: from_text(text)[0] for name, text in output.texts.items()}
        own = {name: gold[name] for name in output.texts}
        f = [scoring.score(own, x, wheels, resamples=0).f1 for x in (output.read, ours)]
        both = [(set(output.read[name]), set(ours[name])) for name in ours]
        rows[output.variant] = {
            "n": len(own),
            "level1_f_llm": round(f[0], 4),
            "level1_f_ours": round(f[1], 4),
            "gap_level1": round(f[1] - f[0], 4),
            "agreement": round(agreement(output.read, ours), 4),
            "same_list": sum(a == b for a, b in both),
            "labels_llm_only": sum(len(a - b) for a, b in both),
            "labels_ours_only": sum(len(b - a) for a, b in both),
        }
    return rows


def human_descriptions(data: Path, gold: Labels) -> dict[str, Any]:
    """Both readers on the descriptions of EMER by people, in lexicon groups."""

    def table(file: str, key: str, column: str) -> dict[str, str]:
        with (data / "emer" / file).open(encoding="utf-8-sig", newline="") as stream:
            return {row[key]: row[column] for row in csv.DictReader(stream)}

    classes = table("gt-chi.csv", "names", "emotions")
    one = {name: [EMER_CLASSES[emotion]] for name, emotion in classes.items()}
    texts: dict[str, tuple[Labels, dict[str, str]]] = {
        "EMER v1, Chinese": (one, table("gt-chi.csv", "names", "reasons")),
        "EMER v1, English": (one, table("gt-eng.csv", "names", "reasons")),
        "EMER v2, Chinese": (gold, table("final-EMER-reason.csv", "name", "chinese")),
        "EMER v2, English": (gold, table("final-EMER-reason.csv", "name", "english")),
    }
    readers: dict[str, Callable[[str], Sequence[str]]] = {
        "stated": lambda text: extract_labels(text).labels,
        "every word": lambda text: emotion_words(text).labels,
    }
    rows = {}
    for title, (right, descriptions) in texts.items():
        for reader, read in readers.items():
            found = {name: read(descriptions[name]) for name in right}
            score = scoring.score(right, found, scoring.open_grouping("lexicon"), resamples=0)
            rows[f"{title}, {reader}"] = {
                "n": score.n,
                "precision": round(score.accuracy, 4),
                "recall": round(score.recall, 4),
                "f1": round(score.f1, 4),
                "labels_per_clip": round(score.labels_per_clip, 2),
                "without_any": sum(not x for x in found.values()),
            }
    return rows


def reader_identity(found: Sequence[Output]) -> str:
    """Hash of everything that is read out of the development outputs."""
    lists = [
        (o.model, o.variant, name, from_text(text)[0])
        for o in found
        for name, text in sorted(o.texts.items())
    ]
    return hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true", help="score what was held out: a look")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data: Path = args.data
    gold = read_labels(data / "mer2024_ov/check-openset.csv").labels
    apart = held_out_clips(gold)
    ours = [name for name in gold if name not in apart]
    wheels = scoring.open_grouping("ew2026", tables=data / "wheels/2026")
    developed = outputs(data, DEVELOPMENT, ours)
    known = read_json(args.out) if args.out.exists() else {}
    reader = reader_identity(developed)
    record = {
        "command": COMMAND,
        "lexicon": lexicon.version(),
        "resamples": RESAMPLES,
        "reader": reader,
        "reader_of_otter": reader_identity([o for o in developed if o.model == "Otter"]),
        "looks": known.get("looks", []),
        "development": part(gold, developed, wheels),
        "human_descriptions": human_descriptions(data, gold),
    }
    if args.held_out:
        kept = {
            "held_out": part(gold, outputs(data, HELD_OUT, apart), wheels),
            "held_out_models": part(gold, outputs(data, HELD_OUT, gold), wheels),
            "held_out_clips": part(gold, outputs(data, DEVELOPMENT, apart), wheels),
            "all": part(gold, outputs(data, (*DEVELOPMENT, *HELD_OUT), gold), wheels),
            "affectgpt_2025": affectgpt(
                gold, outputs(data, ("AffectGPT-2025-ovmerdplus",), gold), wheels
            ),
        }
        look = {"reader": reader} | {
            name: kept[name]["gap_level1"]
            for name in ("held_out", "held_out_models", "held_out_clips")
        }
        earlier = [entry["reader"] for entry in record["looks"]]
        if reader in earlier:  # the same look again
            record["looks"][earlier.index(reader)] = look
        else:
            record["looks"].append(look)
        record |= kept
    else:
        record |= {
            k: known[k]
            for k in ("held_out", "held_out_models", "held_out_clips", "all", "affectgpt_2025")
            if k in known
        }
    record |= {"before": known["before"]} if "before" in known else {}
    write_json(args.out, record)
    for name, block in record.items():
        if isinstance(block, dict) and "rows" in block:
            for title, row in block["rows"].items():
                print(name, title, row)
            print(name, {key: value for key, value in block.items() if key != "rows"})
    print(record["human_descriptions"], record.get("affectgpt_2025"), record["looks"])


if __name__ == "__main__":
    main()
