"""Real outputs of real models, through notebook 08's pipeline.

Descriptions (Chinese) of 100 clips by six models, as their authors released them: PandaGPT,
Valley, VideoChat with frame embeddings and with texts, Video-ChatGPT and Video-LLaMA. Labels
are found without a language model, by :func:`emolib.summaries.from_text`; beside it, every
emotion word of the whole text counts ("whole text"). Scored twice:

* on the 39 clips that are also in MER2024-OV, against its gold labels: lexicon groups and the
  official wheels of 2026. The released sample predictions stand beside them;
* on all 100 clips against EMER v1's one emotion a clip: recall is the share of clips whose
  emotion was named, accuracy the share of named groups that are it.

``reference`` is the human description read the same way: gold labels were taken from it, so it
says what the reader loses, not what a model can reach. Nothing here was fitted or chosen on
these clips; the word tables and rules are those of the library.

Run:  python benchmarks/mllm_outputs.py --data DIR --out FILE
      DIR: mer2024_ov, emer, mllm_outputs and wheels/2026
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emolib import scoring
from emolib.baselines import joined, stored
from emolib.datasets.clip import Clip
from emolib.extraction import emotion_words
from emolib.files import write_json
from emolib.params.baselines import Recipe
from emolib.predict import Prediction, labels_of
from emolib.scoring.files import read_labels

RESAMPLES = 10_000
METRICS = ("accuracy", "recall", "avg", "f1", "labels_per_clip")
SYSTEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pandagpt": ("PandaGPT", ("frames", "audio", "words")),
    "valley": ("Valley", ("frames", "words")),
    "videochat-emb": ("VideoChat, embeddings", ("frames", "words")),
    "videochat-text": ("VideoChat, texts", ("words",)),
    "videochatgpt": ("Video-ChatGPT", ("frames", "words")),
    "videollama": ("Video-LLaMA", ("frames", "audio", "words")),
    "gt": ("reference (human; circular)", ("frames", "audio", "words")),
}
JOINED = {
    "PandaGPT + Valley": ("pandagpt", "valley"),
    "Video-LLaMA + Valley": ("videollama", "valley"),
    "all six": tuple(SYSTEMS)[:-1],
}
CLASSES = {"surprise": "surprised"}


def systems(folder: Path, clips: Sequence[Clip]) -> dict[str, list[Prediction]]:
    """Every system and combination, as predictions."""
    read = {
        key: stored.read(
            Recipe.model_validate(
                {"title": title, "inputs": inputs, "file": str(folder / f"{key}.csv")}
            ),
            clips,
        )
        for key, (title, inputs) in SYSTEMS.items()
    }
    found = {rows[0].system: rows for rows in read.values()}
    for title, parts in JOINED.items():
        for rule in ("concat", "majority") if len(parts) > 2 else ("concat",):
            name = f"{title}, {rule}"
            recipe = Recipe.model_validate({"title": name, "combine": parts, "rule": rule})
            found[name] = joined.join(recipe, {part: read[part] for part in parts})
    return found


def scored(
    gold: Mapping[str, Sequence[str]],
    found: Mapping[str, Mapping[str, Sequence[str]]],
    grouping: Any,
) -> dict[str, Any]:
    """Scores with intervals, the best constant lists, and paired tests against Video-LLaMA."""
    scores = scoring.score_systems(gold, found, grouping, resamples=RESAMPLES)
    rows: dict[str, Any] = {}
    for name, score in sorted(scores.items(), key=lambda item: -item[1].f1):
        rows[name] = {m: round(float(getattr(score, m)), 4) for m in METRICS}
        for metric in ("avg", "f1"):
            rows[name][f"ci95_{metric}"] = [round(x, 4) for x in score.ci95[metric]]
        if name != "Video-LLaMA":
            paired = scoring.compare(score, scores["Video-LLaMA"], resamples=RESAMPLES)
            rows[name]["minus_video_llama"] = {
                m: [round(paired.difference[m], 4), round(paired.p_permutation[m], 4)]
                for m in ("avg", "f1")
            }
    first = next(iter(scores.values()))
    constant = first.constant_list
    return {
        "n": first.n,
        "grouping": first.grouping,
        "systems": rows,
        "best_constant_list": {
            k: round(constant[k], 4) for k in ("accuracy", "recall", "avg", "f1")
        }
        | {"labels": len(constant["labels"])},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data: Path = args.data
    with (data / "emer/gt-chi.csv").open(encoding="utf-8-sig", newline="") as file:
        classes = {row["names"]: row["emotions"] for row in csv.DictReader(file)}
    clips = [Clip(name, Path(name)) for name in classes]
    found = systems(data / "mllm_outputs", clips)
    one = {name: [CLASSES.get(emotion, emotion)] for name, emotion in classes.items()}
    official = read_labels(data / "mer2024_ov/check-openset.csv").labels
    sample = read_labels(data / "mer2024_ov/predict-openset.csv").labels
    shared = {name: official[name] for name in classes if name in official}
    labels = {name: labels_of(rows, classes) for name, rows in found.items()}
    single = {title for title, _ in SYSTEMS.values()}
    labels |= {
        f"{name}, whole text": {r.name: emotion_words(r.description, "zh").labels for r in rows}
        for name, rows in found.items()
        if name in single
    }
    part = {name: {c: rows[c] for c in shared} for name, rows in labels.items()}
    part["released sample predictions"] = {c: sample[c] for c in shared}
    lexicon = scoring.open_grouping("lexicon")
    wheels = scoring.open_grouping("ew2026", tables=data / "wheels/2026")
    result = {
        "command": "python benchmarks/mllm_outputs.py --data data "
        "--out outputs/record/mllm_outputs.json",
        "resamples": RESAMPLES,
        "reading": {
            name: dict(Counter(row.parse for row in rows))
            for name, rows in found.items()
            if name in single
        },
        "official_gold": {
            "lexicon": scored(shared, part, lexicon),
            "wheels_2026": scored(shared, part, wheels),
        },
        "emer_v1_emotion": {"lexicon": scored(one, labels, lexicon)},
    }
    write_json(args.out, result)
    for where in ("official_gold", "emer_v1_emotion"):
        for name, block in result[where].items():
            print(where, name, "n", block["n"], "constant", block["best_constant_list"])
            for system, row in block["systems"].items():
                print("  ", system, row)


if __name__ == "__main__":
    main()
