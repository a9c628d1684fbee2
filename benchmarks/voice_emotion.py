"""Emotion from the voice alone, speaker-independent, by features that need no weights.

Each speaker's clips are predicted by logistic regression trained on the other speakers, once
on the features as they are, and once after bringing every speaker to mean 0 and deviation 1
(which uses the speaker's other clips, without labels). Two tests against chance: dealing the
predictions to random clips, and the whole protocol repeated on labels permuted within every
speaker.

Run:  python benchmarks/voice_emotion.py --data DIR --out FILE
      DIR: index.csv (file, kind, dataset, subject, emotion) and the sound files it names
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

from emolib.features.table import FeatureTable
from emolib.features.voice import voice_features
from emolib.files import write_json
from emolib.media.audio import read_audio
from emolib.models.discriminative import measures
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.linear import FittedLinear
from emolib.models.discriminative.protocol import out_of_fold
from emolib.params.discriminative import ClassifierParams, ProtocolParams
from emolib.progress import track

STRENGTH = 15.0  # fixed for the permuted repetitions: choosing costs six times as much


def read_rows(data: Path) -> tuple[list[dict[str, str]], np.ndarray]:
    """Rows of the sounds with an emotion, and their features."""
    with (data / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["kind"] == "audio" and r["emotion"]]
    features = [voice_features(read_audio(data / r["file"])) for r in track(rows, "voices")]
    return rows, np.array(features)


def corpus_of_voices(rows: list[dict[str, str]], features: np.ndarray) -> Corpus:
    """One data set as a corpus; its classes are its own emotions, its groups the speakers."""
    classes = tuple(sorted({row["emotion"] for row in rows}))
    y = np.array([classes.index(row["emotion"]) for row in rows])
    none = np.zeros(len(rows), dtype=bool)
    table = FeatureTable("voice", "audio", features.astype(np.float32), None, none)
    names = tuple(row["file"] for row in rows)
    return Corpus(names, (table,), y, tuple(row["subject"] for row in rows), classes)


def by_speaker(features: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Every speaker to mean 0, deviation 1."""
    made = np.empty_like(features)
    for speaker in np.unique(speakers):
        own = features[speakers == speaker]
        made[speakers == speaker] = (own - own.mean(axis=0)) / (own.std(axis=0) + 1e-6)
    return made


def fixed(corpus: Corpus, y: np.ndarray, folds: np.ndarray) -> float:
    """UAR out of fold at one strength: cheap enough to repeat on permuted labels."""
    index, hits = np.arange(len(y)), np.zeros(len(y), dtype=bool)
    params = ClassifierParams(kind="linear")
    for fold in np.unique(folds):
        train, test = index[folds != fold], index[folds == fold]
        model = FittedLinear(corpus, train, params)
        model.train(model.inputs(corpus, train), y[train], STRENGTH, True)
        hits[test] = model.logits(corpus, test).argmax(axis=1) == y[test]
    return float(np.mean([hits[y == k].mean() for k in np.unique(y)]))


def study(corpus: Corpus, permutations: int, seed: int) -> dict[str, Any]:
    """Scores, intervals and tests of one data set."""
    speakers = np.array(corpus.groups)
    folds = np.unique(speakers, return_inverse=True)[1]
    params = ClassifierParams(kind="linear", strengths=(1.5, 5.0, 15.0, 50.0))
    k = len(corpus.classes)
    result: dict[str, Any] = {
        "classes": list(corpus.classes),
        "speakers": len(set(corpus.groups)),
        "chance_uar": round(1 / k, 4),
    }
    table = corpus.tables[0]
    normalised = FeatureTable(
        "voice", "audio", by_speaker(table.values, speakers), None, table.missing
    )
    for name, one in (("as_is", table), ("speaker_normalised", normalised)):
        some = Corpus(corpus.names, (one,), corpus.y, corpus.groups, corpus.classes)
        protocol = ProtocolParams(folds=2, inner=0.2)  # folds are given: one a speaker
        found = out_of_fold(some, params, protocol, seed=seed, system=name, folds=folds)
        predicted = found.table.argmax(axis=1)
        result[name] = {
            **measures.class_score(corpus.y, predicted, k, seed=seed).to_json(),
            "p_chance": measures.chance_p(corpus.y, predicted, k, seed=seed),
        }
    rng = np.random.default_rng(seed)
    observed, extreme = fixed(corpus, corpus.y, folds), 0
    for _ in track(range(permutations), "permuted labels"):
        y = corpus.y.copy()
        for fold in np.unique(folds):
            y[folds == fold] = rng.permutation(y[folds == fold])
        extreme += fixed(corpus, y, folds) >= observed
    result["refit_permutation"] = {
        "uar": round(observed, 4),
        "strength": STRENGTH,
        "permutations": permutations,
        "p": round((1 + extreme) / (1 + permutations), 4),
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows, features = read_rows(args.data)
    result: dict[str, Any] = {
        "command": "python benchmarks/voice_emotion.py --data clips "
        "--out outputs/record/voice_emotion.json",
        "features": "emolib.features.voice, 164 numbers, no learned weights",
        "protocol": "leave one speaker out; strength and temperature chosen inside the others",
        "sets": {},
    }
    for name in sorted({row["dataset"] for row in rows}):
        index = [k for k, row in enumerate(rows) if row["dataset"] == name]
        corpus = corpus_of_voices([rows[k] for k in index], features[index])
        found = study(corpus, args.permutations, args.seed)
        result["sets"][name] = found
        for way in ("as_is", "speaker_normalised"):
            print(name, way, {m: found[way][m] for m in measures.METRICS}, found[way]["ci95"])
        print(name, found["refit_permutation"])
    write_json(args.out, result)


if __name__ == "__main__":
    main()
