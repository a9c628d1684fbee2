"""How well tables agree with the released GPT-3.5 groupings on pairs of labels.

For every clip and every two of its labels the released answer says "same group" or not; a
table says so too. Agreement beyond chance is Cohen's kappa over these pairs: all pairs of
different labels, those of them that the wheel tables know, and the pairs of a gold with a
predicted label (equal ones included), which are what a score consists of. The lexicon may
be tuned on one half of the clips only; numbers that count are those of the other, held-out
half. A clip is held out when the first byte of the SHA-256 of its name is odd.

Both halves are reported; intervals and the lexicon's lead over the wheels come from a
bootstrap over clips.

Run:  python benchmarks/lexicon_agreement.py --data DIR --wheels DIR --out FILE
      DIR of --data: check-openset.csv, predict-openset.csv and openset-synonym.zip
      DIR of --wheels: folders 2025 and 2026 with the official tables
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from emolib.files import write_json
from emolib.scoring import lexicon
from emolib.scoring.cached import CachedGrouping
from emolib.scoring.files import read_labels
from emolib.scoring.wheels import WheelTables

Same = Callable[[str, str], bool]
Pair = tuple[str, str, bool]
RESAMPLES = 2_000


def held_out(clip: str) -> bool:
    """The split: decided by the clip's name alone."""
    return hashlib.sha256(clip.encode()).digest()[0] % 2 == 1


def pairs_of(data: Path, clips: list[str], crossed: bool = False) -> list[list[Pair]]:
    """Label pairs of every clip with the released decision; ``crossed``: gold x predicted."""
    sides = [
        read_labels(data / name, "mer2024").labels
        for name in ("check-openset.csv", "predict-openset.csv")
    ]
    grouping = CachedGrouping.read(data / "openset-synonym.zip")
    found = []
    for clip in clips:
        groups = grouping.partition(clip)
        gold, pred = (set(side[clip]) for side in sides)
        pairs = product(gold, pred) if crossed else combinations(sorted(gold | pred), 2)
        found.append([(a, b, groups.get(a, a) == groups.get(b, b)) for a, b in pairs])
    return found


def confusion(clips: list[list[Pair]], same: Same, keep: Same) -> np.ndarray:
    """Pairs by decision, float64 [clips, 4]: both, table only, judge only, neither."""
    table = np.zeros((len(clips), 4))
    for row, pairs in enumerate(clips):
        for a, b, judged in pairs:
            if keep(a, b):
                table[row, 2 * (not same(a, b)) + (not judged)] += 1
    return table


def kappa(table: np.ndarray) -> np.ndarray:
    """Cohen's kappa of confusion counts [..., 4]."""
    both, ours, theirs, neither = np.moveaxis(table, -1, 0)
    n = table.sum(axis=-1)
    seen = (both + neither) / n
    chance = ((both + ours) * (both + theirs) + (neither + ours) * (neither + theirs)) / n**2
    return (seen - chance) / (1 - chance)


def summary(table: np.ndarray) -> dict[str, Any]:
    """Kappa with its interval, precision, recall and number of pairs."""
    total = table.sum(axis=0)
    draws = kappa(resample(table))
    return {
        "kappa": round(float(kappa(total)), 4),
        "ci95": [round(float(x), 4) for x in np.quantile(draws, [0.025, 0.975])],
        "precision": round(float(total[0] / (total[0] + total[1])), 4),
        "recall": round(float(total[0] / (total[0] + total[2])), 4),
        "pairs": int(total.sum()),
    }


def resample(table: np.ndarray) -> np.ndarray:
    """Sums over bootstrap resamples of the clips, the same for every table."""
    rng = np.random.default_rng(0)
    n = len(table)
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ table


def study(data: Path, clips: list[str], wheels: dict[str, WheelTables]) -> dict[str, Any]:
    """All tables on one half, over three sets of pairs."""
    known = next(iter(wheels.values()))
    pairs, crossed = pairs_of(data, clips), pairs_of(data, clips, crossed=True)
    subsets: dict[str, tuple[list[list[Pair]], Same]] = {
        "all_pairs": (pairs, lambda a, b: True),
        "pairs_in_wheel_tables": (
            pairs,
            lambda a, b: known.m1(a) is not None and known.m1(b) is not None,
        ),
        "gold_with_predicted": (crossed, lambda a, b: True),
    }
    tables: dict[str, Same] = {
        "lexicon": lambda a, b: lexicon.find(a).group == lexicon.find(b).group
    }
    for year, wheel in wheels.items():
        for level in (1, 2):
            tables[f"ew{year}_level{level}"] = lambda a, b, w=wheel, lev=level: w.vote(a, b, lev)
    result: dict[str, Any] = {"clips": len(clips)}
    for subset, (items, keep) in subsets.items():
        counts = {name: confusion(items, same, keep) for name, same in tables.items()}
        result[subset] = {name: summary(table) for name, table in counts.items()}
        draws = {name: kappa(resample(table)) for name, table in counts.items()}
        for name in list(tables)[1:]:
            lead = np.quantile(draws["lexicon"] - draws[name], [0.025, 0.975])
            result[subset][name]["lexicon_lead_ci95"] = [round(float(x), 4) for x in lead]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--half", choices=("dev", "both"), default="both")
    args = parser.parse_args()
    wheels = {year: WheelTables(args.wheels / year) for year in ("2025", "2026")}
    names = list(read_labels(args.data / "check-openset.csv", "mer2024").labels)
    result: dict[str, Any] = {
        "command": "python benchmarks/lexicon_agreement.py --data mer2024_ov --wheels wheels "
        "--out outputs/record/lexicon_agreement.json",
        "judge": "released GPT-3.5 groupings of MER2024-OV, "
        f"{CachedGrouping.read(args.data / 'openset-synonym.zip').version}",
        "lexicon": lexicon.version(),
        "labels_in_lexicon": len(lexicon.table()),
        "wheel_tables": {year: wheel.sha for year, wheel in wheels.items()},
        "wheel_rule": "same sector in at least 3 of 5 wheels",
        "split": "held out: first byte of sha256(name) is odd; the lexicon was tuned on the rest",
        "resamples": RESAMPLES,
        "dev": study(args.data, [n for n in names if not held_out(n)], wheels),
    }
    if args.half == "both":
        result["held_out"] = study(args.data, [n for n in names if held_out(n)], wheels)
    write_json(args.out, result)
    for half in ("dev", "held_out"):
        for subset, rows in result.get(half, {}).items():
            for name, row in rows.items() if isinstance(rows, dict) else ():
                print(half, subset, name, row)


if __name__ == "__main__":
    main()
