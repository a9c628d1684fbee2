"""Every number of docs/scoring.md's tables is that of a record."""

from __future__ import annotations

import json
import re
from pathlib import Path

REPO = Path(__file__).parents[1]
TEXT = (REPO / "docs/scoring.md").read_text(encoding="utf-8")


def rows():
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and re.fullmatch(r"0\.\d{4}", cells[1]):
            yield cells[0].strip("`"), cells[1:]


def test_score_table():
    record = json.loads((REPO / "outputs/record/official_scores.json").read_text())["scores"]
    shown = {name: cells for name, cells in rows() if len(cells) == 7}
    assert set(shown) == set(record)
    for name, cells in shown.items():
        found = record[name]
        best = found["constant_list"]
        numbers = [found[k] for k in ("accuracy", "recall", "avg")]
        low, high = found["ci95"]["avg"]
        expected = [f"{x:.4f}" for x in numbers] + [f"{low:.4f} - {high:.4f}"]
        expected += [f"{x:.4f}" for x in (found["f1"], best["avg"], best["f1"])]
        assert cells == expected, name


def test_table_against_constant_lists():
    record = json.loads((REPO / "outputs/record/official_scores.json").read_text())["scores"]
    shown = {
        found[1]: found[2]
        for found in re.finditer(r"^\| `([^`]+)` \| ([+-]0\.\d{4}, p .*) \|$", TEXT, re.MULTILINE)
    }
    assert set(shown) == set(record)
    for name, cells in shown.items():
        lists = record[name]["minus_constant_lists"]
        expected = []
        for which, metric in (("same_length", "avg"), ("any_length", "avg"), ("best_f1", "f1")):
            gap = lists[which][metric]
            p = "< 0.001" if gap["p"] < 0.001 else f"{gap['p']:.3f}"
            labels = "" if which == "same_length" else f" ({lists[which]['labels']})"
            expected.append(f"{gap['difference']:+.4f}, p {p}{labels}")
        assert cells == " | ".join(expected), name


def test_agreement_table():
    record = json.loads((REPO / "outputs/record/lexicon_agreement.json").read_text())
    shown = {name: cells for name, cells in rows() if len(cells) == 5}
    assert len(shown) == 3
    columns = ["lexicon", *(f"ew{y}_level{k}" for y in (2025, 2026) for k in (1, 2))]
    for name, cells in shown.items():
        assert cells == [f"{record['held_out'][name][c]['kappa']:.4f}" for c in columns]
    assert f"{record['dev']['all_pairs']['lexicon']['kappa']:.4f}" in TEXT


def test_commands_of_the_records_are_shown():
    for path in (REPO / "outputs/record").glob("*scor*.json"):
        assert json.loads(path.read_text())["command"] in TEXT


def test_benchmark_table():
    record = json.loads((REPO / "outputs/record/scoring_benchmark.json").read_text())
    for way in ("systems", "clips"):
        found = record[way]
        largest = max(found["sizes"], key=lambda row: row["predictions"])
        expected = [
            f"`{way}`",
            f"{largest['predictions']:,}",
            f"{largest['cpu_seconds']:.2f}",
            f"{found['plain_cpu_seconds']:.2f}",
            f"{found['cpu_ratio']}",
            f"{found['ratio']}",
            f"{largest['process_memory_mb']}",
        ]
        assert f"| {' | '.join(expected)} |" in TEXT
    assert record["systems"]["cpu_ratio"] >= 20
