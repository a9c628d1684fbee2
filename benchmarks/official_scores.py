"""The released MER2024-OV predictions under every grouping: the numbers docs/scoring.md shows.

Run:  python benchmarks/official_scores.py --data DIR --wheels DIR --out FILE
      DIR of --data: check-openset.csv, predict-openset.csv and openset-synonym.zip
      DIR of --wheels: folders 2025 and 2026 with the official tables
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from emolib import scoring
from emolib.files import write_json
from emolib.labels import Mode
from emolib.scoring.files import read_labels


def shortly(found: scoring.Comparison) -> dict[str, Any]:
    """Difference of Avg and F1, its interval and p."""
    return {
        "labels": round(found.b["labels_per_clip"]),
        **{
            metric: {
                "difference": found.difference[metric],
                "ci95": found.ci95[metric],
                "p": found.p_permutation[metric],
            }
            for metric in ("avg", "f1")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings: dict[str, tuple[Mode, scoring.Grouping]] = {
        "cached": ("mer2024", scoring.open_grouping("cached", args.data / "openset-synonym.zip")),
        "exact": ("mer2024", scoring.open_grouping("exact")),
        "lexicon": ("tolerant", scoring.open_grouping("lexicon")),
    }
    for year in ("2025", "2026"):
        for outside in ("drop", "keep"):
            wheel = scoring.open_grouping(
                f"ew{year}",
                tables=args.wheels / year,
                outside="keep" if outside == "keep" else "drop",
            )
            settings[f"ew{year} {outside}"] = ("mer2025", wheel)
    rows: dict[str, Any] = {}
    for name, (mode, grouping) in settings.items():
        gold, pred = (
            read_labels(args.data / file, mode).labels
            for file in ("check-openset.csv", "predict-openset.csv")
        )
        score = scoring.score(gold, pred, grouping)
        found = score.to_json()
        against = scoring.against_constants(score)
        # The lists themselves are test labels of a set that may not be passed on.
        best = found["constant_list"]
        for part in (best, best["same_length"], best["best_f1"]):
            part["n_labels"] = len(part.pop("labels"))
        rows[name] = {
            "parser": mode,
            **found,
            "minus_constant_lists": {which: shortly(one) for which, one in against.items()},
        }
        print(f"{name:12} Avg {found['avg']:.4f} F1 {found['f1']:.4f}")
    command = (
        "python benchmarks/official_scores.py --data mer2024_ov --wheels wheels "
        "--out outputs/record/official_scores.json"
    )
    write_json(args.out, {"command": command, "scores": rows})


if __name__ == "__main__":
    main()
