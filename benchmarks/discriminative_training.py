"""How long the discriminative model takes to train on 5,000 clips, five folds, one process.

Generated features of the published widths (audio 1,024, text 5,120, video 768) with a signal
in each, six classes. Wall-clock time depends on what else the machine does; processor time
hardly does.

Run:  python benchmarks/discriminative_training.py --out FILE [--clips N]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from emolib.features.table import FeatureTable
from emolib.files import write_json
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.protocol import out_of_fold
from emolib.params.discriminative import ClassifierParams, ProtocolParams
from emolib.processes import cores

WIDTHS = {"audio": (1024, 0.06), "text": (5120, 0.02), "visual": (768, 0.05)}


def generated(clips: int) -> Corpus:
    """Gaussian features around class centres."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 6, clips)
    none = np.zeros(clips, dtype=bool)
    tables = []
    for modality, (width, signal) in WIDTHS.items():
        centres = signal * rng.normal(size=(6, width))
        values = (centres[y] + rng.normal(size=(clips, width))).astype(np.float32)
        tables.append(FeatureTable(modality, modality, values, None, none))  # type: ignore[arg-type]
    names = tuple(f"clip{k}" for k in range(clips))
    return Corpus(names, tuple(tables), y, ("",) * clips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=5_000)
    args = parser.parse_args()
    corpus = generated(args.clips)
    result: dict[str, Any] = {
        "command": "python benchmarks/discriminative_training.py "
        "--out outputs/record/discriminative_training.json",
        "clips": args.clips,
        "widths": {name: width for name, (width, _) in WIDTHS.items()},
        "cores": cores(),
        "load_before": round(os.getloadavg()[0], 1),
    }
    for name, params in (("defaults", {}), ("batch 32, as published", {"batch_size": 32})):
        begun, work = time.perf_counter(), time.process_time()
        found = out_of_fold(corpus, ClassifierParams(**params), ProtocolParams(), system=name)  # type: ignore[arg-type]
        result[name] = {
            "wall_s": round(time.perf_counter() - begun, 1),
            "cpu_s": round(time.process_time() - work, 1),
            "epochs": [model["epochs"] for model in found.runs[0]["models"]],
            "weighted_f1": found.runs[0]["weighted_f1"],
        }
        print(name, result[name])
    write_json(args.out, result)


if __name__ == "__main__":
    main()
