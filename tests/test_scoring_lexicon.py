from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib import scoring
from emolib.labels import normalise
from emolib.scoring import lexicon
from emolib.scoring.lexicon import find, table
from tests.shared import shared

REPO = Path(__file__).parents[1]


def same(a, b):
    return find(a).group == find(b).group


def test_table_is_well_formed():
    rows = table()
    assert len(rows) >= 2_500
    assert all(normalise(label) == label for label in rows)
    families: dict[str, set[str]] = {}
    for entry in rows.values():
        families.setdefault(entry.group, set()).add(entry.family)
        assert entry.sources
    assert all(len(found) == 1 for found in families.values())
    assert len(families) == 51
    cited = {source for entry in rows.values() for source in entry.sources} - {"extension"}
    assert all(source in (lexicon.__doc__ or "") for source in cited)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("happy", "joyful"),
        ("happy", "Happiness"),
        ("worried", "anxious"),
        ("worry", "worriedly"),
        ("angry", "annoyed expression"),
        ("sad", "deep sorrow"),
        ("surprised", "at a loss for words"),
        ("doubt", "don't believe"),
        ("calm", "inner peace"),
        ("开心", "happy"),
        ("a feeling of dread", "fear"),
        ("self deprecating", "self-deprecating"),
    ],
)
def test_same_emotion(a, b):
    assert same(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("happy", "unhappy"),
        ("happy", "not happy"),
        ("amused", "not amused"),
        ("fear", "fearless"),
        ("hope", "hopeless"),
        ("happy", "sad"),
        ("happy", "happening"),
        ("surprised", "angry"),
        ("trust", "lack of trust"),
        ("happy", "neutral"),
    ],
)
def test_different_emotions(a, b):
    assert not same(a, b)


@pytest.mark.parametrize(
    ("label", "rule"),
    [
        ("happy", "listed"),
        ("excitedly", "form"),
        ("happy tone", "frame"),
        ("worried-looking", "words"),
        ("blorb", "unknown"),
        ("happy and sad", "unknown"),
        ("", "unknown"),
    ],
)
def test_rule_is_named(label, rule):
    assert find(label).rule == rule


@given(st.text(max_size=30))
def test_any_text_has_a_group(text):
    found = find(text)
    assert found == find(text)
    assert (found.rule == "unknown") == (found.group == normalise(text) and not found.via) or (
        found.group in {entry.group for entry in table().values()}
    )


def test_unknown_labels_stay_apart_and_lower_the_coverage():
    grouping = scoring.open_grouping("lexicon")
    gold, pred = {"a": ["blorb", "happy"]}, {"a": ["blorbs", "joy"]}  # joy is also a group's name
    result = scoring.score(gold, pred, grouping, resamples=0)
    assert (result.accuracy, result.recall, result.coverage) == (0.5, 0.5, 0.5)
    assert result.grouping == {"name": "lexicon", "version": lexicon.version()}


def test_a_label_that_is_a_groups_name_but_unknown_does_not_join_it():
    grouping = scoring.open_grouping("lexicon")
    views = grouping.views(["joy", "zzz"])  # type: ignore[attr-defined]
    assert views == [["joy", "=zzz"]]


@pytest.fixture(scope="module")
def record():
    return json.loads((REPO / "outputs/record/lexicon_agreement.json").read_text())


def test_recorded_agreement_is_of_this_table_and_beats_the_wheels(record):
    assert record["lexicon"] == lexicon.version()
    for pairs in ("all_pairs", "pairs_in_wheel_tables", "gold_with_predicted"):
        held_out = record["held_out"][pairs]
        for wheel in ("ew2025_level1", "ew2025_level2", "ew2026_level1", "ew2026_level2"):
            assert held_out["lexicon"]["kappa"] > held_out[wheel]["kappa"]
            assert held_out[wheel]["lexicon_lead_ci95"][0] > 0


@pytest.mark.shared
def test_recorded_agreement_is_reproduced(record, tmp_path, monkeypatch):
    data, wheels = shared("data/mer2024_ov"), shared("data/wheels")
    script = REPO / "benchmarks/lexicon_agreement.py"
    out = tmp_path / "a.json"
    arguments = ["x", "--data", str(data), "--wheels", str(wheels), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(script), run_name="__main__")
    assert json.loads(out.read_text()) == record
