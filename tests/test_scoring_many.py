from __future__ import annotations

import numpy as np
import pytest

from emolib import scoring
from emolib.errors import ScoreError
from emolib.scoring import many
from emolib.scoring.cached import CachedGrouping
from emolib.scoring.grouping import ExactGrouping, MappingGrouping


def world(systems=7, clips=12, seed=0):
    rng = np.random.default_rng(seed)

    def labels(low):
        return [f"w{k}" for k in rng.integers(0, 8, rng.integers(low, 5))]

    gold = {f"c{i}": labels(1) for i in range(clips)}
    preds = {f"s{k}": {name: labels(0) for name in gold} for k in range(systems)}
    return gold, preds


GROUPINGS = [
    ExactGrouping(),
    MappingGrouping({"w1": "a", "w2": "a", "w3": "b"}),
    CachedGrouping({f"c{i}": "[['w1', 'w2'], ['w3', 'w5']]" for i in range(12)}),
]


@pytest.mark.parametrize("grouping", GROUPINGS, ids=lambda g: g.name)
@pytest.mark.parametrize("texts", [False, True])
def test_many_systems_score_as_one_by_one(monkeypatch, grouping, texts):
    monkeypatch.setattr(many, "_ROWS", 31)  # blocks that cut through systems
    gold, preds = world()
    given = preds
    if texts:
        given = {s: {n: repr(x) for n, x in p.items()} for s, p in preds.items()}
    found = scoring.score_systems(gold, given, grouping, mode="mer2024", resamples=50)
    assert list(found) == list(preds)
    for name, pred in preds.items():
        alone = scoring.score(gold, pred, grouping, resamples=50)
        assert found[name].to_json() == alone.to_json()
        assert found[name].per_clip.equals(alone.per_clip)
        assert found[name].coverage_pred == alone.coverage_pred
    first, second = list(found.values())[:2]
    if grouping.shared:
        assert scoring.compare(first, second).n == 12


def test_large_vocabularies_take_the_other_path(monkeypatch):
    gold, preds = world()
    whole = scoring.score_systems(gold, preds, GROUPINGS[1], resamples=0)
    monkeypatch.setattr(many, "_TABLE", 10)
    single = scoring.score_systems(gold, preds, GROUPINGS[1], resamples=0)
    assert [s.to_json() for s in whole.values()] == [s.to_json() for s in single.values()]


def test_names_are_checked_for_every_system():
    gold, preds = world()
    del preds["s3"]["c5"]
    with pytest.raises(ScoreError, match=r"system 's3': 1 of 12 gold clips have no prediction"):
        scoring.score_systems(gold, preds, ExactGrouping())
    found = scoring.score_systems(gold, preds, ExactGrouping(), missing="zero", resamples=0)
    assert found["s3"].names == {"missing_zeroed": 1}
    assert found["s3"].n == 12
    assert found["s2"].names == {}
    preds["s4"]["new"] = ["w1"]
    with pytest.raises(ScoreError, match=r"system 's4': 1 predictions have no gold clip"):
        scoring.score_systems(gold, preds, ExactGrouping(), missing="zero")


def test_empty_gold_and_no_systems():
    assert scoring.score_systems({"a": ["x"]}, {}, ExactGrouping()) == {}
    with pytest.raises(ScoreError, match="no gold label"):
        scoring.score_systems({"a": []}, {"s": {"a": ["x"]}}, ExactGrouping())
