"""The text side of AffectGPT's data: EMER v2 as read, split, prompted and turned into labels.

No clip is needed. What is counted: descriptions and what was stripped from them, clips with words,
the split of 266 and 66 clips (by seed; sizes only, names are not passed on), training prompts, and
how well labels read out of the 332 reference descriptions themselves, without a model, meet the
published labels: the ceiling of any model scored through its descriptions.

Run:  python benchmarks/emer_text.py --emer DIR --labels FILE --words FILE --out FILE
      DIR: final-EMER-reason.csv; labels: check-openset.csv; words: a subtitle file of MER
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from emolib import scoring, sft
from emolib.datasets.open import read_dataset
from emolib.extraction import emotion_words
from emolib.files import read_json, write_json
from emolib.models.affectgpt.prompts import AUDIO, VIDEO, build_prompt
from emolib.params import DataParams
from emolib.summaries import from_text

TEST, VAL, SEED = 66, 26, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("emer", "labels", "words", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copy(args.emer / "final-EMER-reason.csv", root)
        shutil.copy(args.labels, root / "check-openset.csv")
        params = DataParams(
            kind="emer-v2", root=str(root), media="none", subtitles=str(args.words.resolve())
        )
        reading = read_dataset(params, root)
        clips = reading.items
        split = sft.split_dataset(clips, root / "split.json", test=TEST, val=VAL, seed=SEED)
        drawn = read_json(root / "split.json")["splits"]
    assert len(set().union(*map(set, drawn.values()))) == len(clips)
    prompts = [build_prompt("paper", subtitle=clip.subtitle) for clip in clips]
    assert all(p.count(AUDIO) == p.count(VIDEO) == 1 for p in prompts)
    assert not any(mark in str(c.description) for c in clips for mark in ("Input:", "Output:"))
    gold = {clip.name: list(clip.labels or ()) for clip in clips}
    ways = {
        "conclusion": {c.name: list(from_text(str(c.description))[0]) for c in clips},
        "whole text": {c.name: list(emotion_words(c.description).labels) for c in clips},
    }
    grouping = scoring.open_grouping("lexicon")
    scores: dict[str, Any] = {}
    for name, labels in ways.items():
        found = scoring.score(gold, labels, grouping, seed=SEED).to_json()
        best = found["constant_list"]
        for part in (best, best["same_length"], best["best_f1"]):
            part["n_labels"] = len(part.pop("labels"))  # test labels of a set not passed on
        scores[name] = found
        low, high = found["ci95"]["avg"]
        print(f"{name:11} Avg {found['avg']:.3f} ({low:.3f} to {high:.3f})")
    record = {
        "command": "python benchmarks/emer_text.py --emer emer --labels check-openset.csv "
        "--words transcription-engchi-polish.csv --out outputs/record/emer_text.json",
        "clips": len(clips),
        "findings": {f.what: f.count for f in reading.of("note") + reading.of("warning")},
        "with_words": sum(clip.subtitle is not None for clip in clips),
        "description_words": sum(len(str(c.description).split()) for c in clips) // len(clips),
        "split": {**split.to_json(), "seed": SEED},
        "prompts_with_words": sum("<Subtitle>" in prompt for prompt in prompts),
        "labels_of_the_references": scores,
    }
    write_json(args.out, record)


if __name__ == "__main__":
    main()
