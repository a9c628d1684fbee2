"""Six emotion classes from the words alone, on the real subtitles of MER2023's labelled set.

Every clip is predicted out of fold by logistic regression over hashed n-grams of the Chinese
subtitle and of its English translation; strength and temperature are chosen inside each
training part. Clips with the same Chinese words share a fold. The release names neither
speaker nor source video, so neighbouring lines of one scene may be on both sides of a fold;
that is a limit of these numbers.

The same model is also run the published way, trained on the clips it predicts: that row shows
the size of the leak and nothing else.

`--predictions` writes the class of each clip for fusion studies (and `as_published_…` beside
it). Derived from the data set, it is not to be published.

Run:  python benchmarks/text_emotion.py --data DIR --out FILE [--predictions FILE]
      DIR: label-6way.csv (name, emo) and transcription-engchi-polish.csv
           (name, chinese, english)
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np

from emolib.features.table import FeatureTable
from emolib.features.words import MARKS, count_table, text_marks
from emolib.files import write_json, write_jsonl
from emolib.hashing import sha_file
from emolib.models.discriminative import measures
from emolib.models.discriminative.classes import CLASSES, read_classes
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.protocol import ClassPredictions, as_published, out_of_fold
from emolib.params.discriminative import ClassifierParams, ProtocolParams

LABELS, WORDS = "label-6way.csv", "transcription-engchi-polish.csv"
SETS = {"Chinese": (0, 2), "English": (1, 2), "both": (0, 1, 2)}


def read_corpus(data: Path) -> Corpus:
    """Words, marks and classes of every clip; clips with the same words are one group."""
    classes = read_classes(data / LABELS)
    with (data / WORDS).open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] in classes]
    chinese = [row["chinese"].strip() for row in rows]
    english = [row["english"].strip() for row in rows]
    marks = np.array([text_marks(text) for text in chinese], dtype=np.float32)
    blank = np.array([not text for text in chinese])
    tables = (
        count_table("Chinese n-grams", chinese),
        count_table("English n-grams", english),
        FeatureTable("marks", "text", marks, None, blank, {}, {"marks": list(MARKS)}),
    )
    y = np.array([CLASSES.index(classes[row["name"]]) for row in rows])
    names = tuple(row["name"] for row in rows)
    return Corpus(names, tables, y, tuple(chinese))


def report(corpus: Corpus, found: ClassPredictions, seed: int) -> dict[str, Any]:
    """Score with intervals, test against chance, calibration."""
    predicted, k = found.table.argmax(axis=1), len(CLASSES)
    curve = measures.reliability(found.table, corpus.y)
    spoken = np.array([group != "" for group in corpus.groups])
    with_words = measures.class_score(corpus.y[spoken], predicted[spoken], k, seed=seed)
    return {
        **measures.class_score(corpus.y, predicted, k, seed=seed).to_json(),
        "p_chance": measures.chance_p(corpus.y, predicted, k, seed=seed),
        "ece": round(curve.ece, 4),
        "nll": round(curve.nll, 4),
        "clips_with_words": {"n": with_words.n, **_rounded(with_words.values)},
        "runs": [{m: run[m] for m in measures.METRICS} for run in found.runs],
        "strengths": [model["strength"] for run in found.runs for model in run["models"]],
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    corpus = read_corpus(args.data)
    params = ClassifierParams(kind="linear", strengths=(0.5, 1.5, 5.0))
    protocol = ProtocolParams(folds=5)
    result: dict[str, Any] = {
        "command": "python benchmarks/text_emotion.py --data mer2023_text "
        "--out outputs/record/text_emotion.json",
        "data": {name: sha_file(args.data / name) for name in (LABELS, WORDS)},
        "classes": list(CLASSES),
        "protocol": "5 folds, stratified, same words in one fold; strength and temperature "
        "chosen on an inner 15 %; out of fold",
        "systems": {},
    }
    tables = {}
    for name, parts in SETS.items():
        begun = time.process_time()
        some = Corpus(corpus.names, tuple(corpus.tables[k] for k in parts), corpus.y, corpus.groups)
        found = out_of_fold(some, params, protocol, seed=args.seed, system=f"text only, {name}")
        tables[name] = found.table.argmax(axis=1)
        result["systems"][name] = report(some, found, args.seed)
        result["systems"][name]["cpu_seconds"] = round(time.process_time() - begun, 1)
        print(name, {k: result["systems"][name][k] for k in (*measures.METRICS, "ci95")})
        if name == "both" and args.predictions:
            write_jsonl(args.predictions, found.rows(some))
        if name == "both":
            seen = as_published(some, params, protocol, seed=args.seed, system=found.system)
            result["as_published"] = {
                "system": seen.system,
                "seen_in_training": seen.leaked,
                **report(some, seen, args.seed),
            }
            print(seen.system, {k: result["as_published"][k] for k in measures.METRICS})
            if args.predictions:
                beside = args.predictions.with_name(f"as_published_{args.predictions.name}")
                write_jsonl(beside, seen.rows(some))
    result["both_minus_chinese_p"] = measures.paired_p(
        corpus.y, tables["both"], tables["Chinese"], len(CLASSES), seed=args.seed
    )
    write_json(args.out, result)


if __name__ == "__main__":
    main()
