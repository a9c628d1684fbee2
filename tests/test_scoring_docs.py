"""Every number of docs/scoring.md's tables is that of a record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from emolib.scoring.files import read_labels
from tests.shared import shared

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


# --- label reading ---------------------------------------------------------------------------

READING = json.loads((REPO / "outputs/record/label_reading.json").read_text())


def table(name):
    """The rows below a mark, without the heading: first cell -> the others."""
    found = TEXT.split(f"<!-- record: label_reading/{name} -->\n")[1].split("\n\n")[0]
    lines = [line.strip("|").split("|") for line in found.splitlines()[2:]]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def with_interval(gap):
    return f"{gap['mean']:+.3f} [{gap['ci95'][0]:+.3f}, {gap['ci95'][1]:+.3f}]"


def test_label_reading_overview():
    titles = {
        "development": "development",
        "same models, held-out clips": "held_out_clips",
        "held-out models, all clips": "held_out_models",
        "held-out models, held-out clips": "held_out",
        "all": "all",
    }
    shown = table("overview")
    assert list(shown) == list(titles)
    for title, cells in shown.items():
        part, before = READING[titles[title]], READING["before"]["parts"][titles[title]]
        mean = part["mean"]
        expected = [f"{part['outputs']} × {part['n']}"]
        for metric, gap in (("level1_f", "gap_level1"), ("lexicon_f1", "gap_lexicon")):
            expected += [f"{mean[reader][metric]:.3f}" for reader in ("llm", "ours")]
            expected += [with_interval(part[gap]), f"{before[gap]['mean']:+.3f}"]
        expected += [
            f"{mean[reader]['labels_per_clip']:.1f}" for reader in ("llm", "ours", "every_word")
        ]
        assert cells == [*expected, f"{part['agreement']:.2f}"], title


def test_label_reading_of_each_output():
    rows = READING["development"]["rows"] | READING["held_out_models"]["rows"]
    shown = table("outputs")
    assert list(shown) == list(rows)
    for title, cells in shown.items():
        row = rows[title]
        llm, ours = row["llm"], row["ours"]
        expected = []
        for metric, gap in (("level1_f", "gap_level1"), ("lexicon_f1", "gap_lexicon")):
            expected += [f"{llm[metric]:.3f}", f"{ours[metric]:.3f}", f"{row[gap]:+.3f}"]
        expected += [f"{reader['labels_per_clip']:.1f}" for reader in (llm, ours)]
        assert cells == [*expected, f"{row['agreement']:.2f}"], title


def test_label_reading_of_human_descriptions():
    rows = READING["human_descriptions"]
    assert table("human") == {
        title: [
            str(row["n"]),
            *(f"{row[metric]:.3f}" for metric in ("precision", "recall", "f1")),
            f"{row['labels_per_clip']:.2f}",
        ]
        for title, row in rows.items()
    }


def test_label_reading_says_how_often_what_was_held_out_was_looked_at():
    assert READING["command"] in TEXT
    looks = len(READING["looks"])
    assert f"`looks` has {looks} {'entry' if looks == 1 else 'entries'}" in TEXT
    for kind, n in READING["held_out_models"]["missed_groups"].items():
        assert re.search(rf"^- {n} are ", TEXT, re.MULTILINE), kind


@pytest.mark.shared
def test_the_record_is_of_this_reader(monkeypatch):
    """A reader that reads other labels needs a new record, and that is one more look."""
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    import label_reading

    data = shared("data/ovmerd_outputs/Otter.csv").parents[1]
    gold = read_labels(shared("data/mer2024_ov/check-openset.csv")).labels
    apart = label_reading.held_out_clips(gold)
    found = label_reading.outputs(data, ("Otter",), [name for name in gold if name not in apart])
    assert len(apart) == 100
    assert all(apart.isdisjoint(output.texts) for output in found)
    assert label_reading.reader_identity(found) == READING["reader_of_otter"]
