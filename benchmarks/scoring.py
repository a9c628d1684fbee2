"""A million predictions: this library beside the plain method, clip by clip, in one run.

Two ways to come by a million predictions, both in the released text format, with a vocabulary
of 240 words in natural (Zipf) frequencies and the list lengths of the released files:

* ``systems``: some 3,000 systems, checkpoints or samples on one set of 332 clips
  (:func:`emolib.scoring.score_systems`). This is the ratio that counts.
* ``clips``: one system on a million different clips (:func:`emolib.scoring.score_texts`),
  where gold and stored groups are a million different texts too.

The plain method (``emolib.scoring.reference``) parses groups, gold and prediction of one clip
after the other. Both must give the same numbers. Seconds at growing sizes show that time is
linear; memory is that of the whole process, inputs included, and what scoring added to it.

Run:  python benchmarks/scoring.py --out FILE [--predictions 1000000]
"""

from __future__ import annotations

import argparse
import os
import resource
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from emolib import scoring
from emolib.files import write_json
from emolib.labels import parse_labels
from emolib.scoring import reference
from emolib.scoring.cached import CachedGrouping

T = TypeVar("T")
Texts = dict[str, str]


WORDS = [f"emotion{i}" for i in range(240)]
CLIPS = 332


def lists(n: int, mean: float, low: int, high: int, rng: np.random.Generator) -> list[str]:
    """Label lists as texts."""
    weights = 1 / np.arange(1, len(WORDS) + 1)
    lengths = np.clip(rng.poisson(mean, n), low, high)
    flat = iter(rng.choice(len(WORDS), lengths.sum(), p=weights / weights.sum()).tolist())
    return [
        repr(list(dict.fromkeys(WORDS[next(flat)] for _ in range(k)))) for k in lengths.tolist()
    ]


def group(*texts: str) -> str:
    """Stored groups of the labels of some lists, some four groups a clip."""
    found: dict[int, list[str]] = {}
    for label in sorted({label for text in texts for label in reference.parse_list(text)}):
        found.setdefault(int(label[7:]) % 4, []).append(label)
    return repr(list(found.values()))


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """Result, wall-clock and processor seconds."""
    start, busy = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - start, time.process_time() - busy


def resident_mb() -> float:
    """Memory of this process now, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Peak:
    """Samples the resident memory while a block runs."""

    def __enter__(self) -> Peak:
        self.start = self.peak = resident_mb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, resident_mb())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def check(plain: tuple[float, float, int], ours: tuple[float, float, int]) -> None:
    """Same numbers."""
    assert plain[2] == ours[2]
    assert np.allclose(plain, ours, atol=1e-9, rtol=0), (plain, ours)


def row(n: int, run: tuple[object, float, float], memory: Peak) -> dict[str, float]:
    """One line of the table of sizes."""
    return {
        "predictions": n,
        "seconds": round(run[1], 3),
        "cpu_seconds": round(run[2], 3),
        "microseconds_per_prediction": round(1e6 * run[1] / n, 3),
        "process_memory_mb": round(memory.peak),
        "memory_added_by_scoring_mb": round(memory.peak - memory.start),
    }


def ratios(
    plain: tuple[object, float, float], ours: tuple[object, float, float]
) -> dict[str, float]:
    """How many times faster."""
    return {
        "plain_seconds": round(plain[1], 3),
        "plain_cpu_seconds": round(plain[2], 3),
        "ratio": round(plain[1] / ours[1], 1),
        "cpu_ratio": round(plain[2] / ours[2], 1),
    }


def systems_study(total: int) -> dict[str, object]:
    """Many systems on one set."""
    rng = np.random.default_rng(0)
    names = [f"sample_{i:08d}" for i in range(CLIPS)]
    gold = dict(zip(names, lists(CLIPS, 3.4, 1, 9, rng), strict=True))
    count = -(-total // CLIPS)
    preds = {
        f"system {k}": dict(zip(names, lists(CLIPS, 2.3, 0, 6, rng), strict=True))
        for k in range(count)
    }
    # Frozen groups that know every word, as a comparison of systems needs.
    answers = {name: group(repr(WORDS[:24]), gold[name]) for name in names}
    grouping = CachedGrouping(answers, version="benchmark")
    parsed = {name: parse_labels(text, "mer2024").labels for name, text in gold.items()}
    table = []
    for k in (count // 10, count // 3, count):
        part = dict(list(preds.items())[:k])

        def ours(part: dict[str, Texts] = part) -> dict[str, scoring.Score]:
            return scoring.score_systems(parsed, part, grouping, mode="mer2024")

        with Peak() as memory:
            fast = min((timed(ours) for _ in range(3)), key=lambda run: run[1])
        table.append(row(k * CLIPS, fast, memory))
        print("systems", table[-1], flush=True)
    plain = timed(
        lambda: {k: reference.score_files(gold, pred, answers) for k, pred in preds.items()}
    )
    for name, found in fast[0].items():
        check(plain[0][name], (found.accuracy, found.recall, found.n))
    return {"sizes": table, **ratios(plain, fast)}


def clips_study(total: int) -> dict[str, object]:
    """One system on many clips."""
    rng = np.random.default_rng(0)
    table = []
    for n in (total, total // 3, total // 10):  # the largest first: its memory is its own
        names = [f"sample_{i:08d}" for i in range(n)]
        gold = dict(zip(names, lists(n, 3.4, 1, 9, rng), strict=True))
        pred = dict(zip(names, lists(n, 2.3, 0, 6, rng), strict=True))
        answers = {name: group(gold[name], pred[name]) for name in names}
        grouping = CachedGrouping(answers, version="benchmark")

        def ours(
            gold: Texts = gold, pred: Texts = pred, by: CachedGrouping = grouping
        ) -> scoring.Score:
            return scoring.score_texts(gold, pred, by, mode="mer2024")

        with Peak() as memory:
            fast = min((timed(ours) for _ in range(3)), key=lambda run: run[1])
        table.append(row(n, fast, memory))
        print("clips", table[-1], flush=True)
        if n == total:
            plain, largest = timed(partial(reference.score_files, gold, pred, answers)), fast
            check(plain[0], (fast[0].accuracy, fast[0].recall, fast[0].n))
            intervals = timed(partial(getattr, largest[0], "ci95"))
    return {
        "sizes": table,
        **ratios(plain, largest),
        "seconds_for_10000_resamples": round(intervals[1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--study", choices=("systems", "clips", "both"), default="both")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result: dict[str, object] = {
        "command": "python benchmarks/scoring.py --out outputs/record/scoring_benchmark.json",
        "processors": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }
    if args.study != "clips":
        result["systems"] = systems_study(args.predictions)
        print(result["systems"])
    if args.study != "systems":
        result["clips"] = clips_study(args.predictions)
        print(result["clips"])
    if args.out is not None:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
