"""A language model as co-judge, good answers and rubbish."""

from __future__ import annotations

import pytest

from emolib.cojudge import co_judge
from emolib.engines.base import Reply
from emolib.errors import ScoreError
from emolib.ledger import Ledger
from tests.fakes import FakeEngine

SYSTEMS = {
    "A": {"x": ["happy", "surprised"], "y": ["sad"], "z": []},
    "B": {"x": ["joyful"], "y": [], "z": []},
}


def judged(tmp_path, answer, **options):
    engine = FakeEngine(answer if callable(answer) else lambda _: answer)
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        found = co_judge(SYSTEMS, engine, ledger, **options)
    return {p.name: p for p in found}, engine


def test_the_judge_sees_candidates_with_their_systems(tmp_path):
    found, engine = judged(tmp_path, '["happy"]', subtitles={"x": "hi <image>"})
    first = engine.seen[0].prompt
    assert "happy (A, B); surprised (A)" in first
    assert "The person says: hi ‹image>." in first
    assert "The person says: unknown." in engine.seen[1].prompt
    assert found["x"].labels == ("happy",)
    assert found["x"].info["candidates"] == {"happy": ["A", "B"], "surprised": ["A"]}
    assert found["x"].system == "LLM co-judge"


def test_synonyms_count_and_inventions_do_not(tmp_path):
    found, _ = judged(tmp_path, '["joyful", "bored", "astonished", "glad"]')
    assert found["x"].labels == ("happy", "surprised")
    assert found["x"].info["invented"] == 1


def test_an_empty_list_is_a_verdict(tmp_path):
    found, _ = judged(tmp_path, "I keep none of them: []")
    assert (found["x"].status, found["x"].labels, found["x"].error) == ("ok", (), None)


@pytest.mark.parametrize(
    "answer", ["", "   ", "I cannot see the video.", '["bored"]', "[1, 2]", "]["]
)
def test_rubbish_is_an_error_row_without_labels(tmp_path, answer):
    found, _ = judged(tmp_path, answer)
    for name in "xy":
        assert (found[name].status, found[name].labels) == ("error", ())
        assert "names no candidate" in found[name].error
        assert found[name].description == answer


def test_an_engine_error_is_an_error_row(tmp_path):
    found, _ = judged(tmp_path, lambda r: Reply(id=r.id, error="out of memory"))
    assert found["x"].error == "out of memory"


def test_clips_without_candidates_are_not_asked(tmp_path):
    found, engine = judged(tmp_path, '["happy"]')
    assert len(engine.seen) == 2
    assert (found["z"].status, found["z"].labels, found["z"].info["asked"]) == ("ok", (), False)


def test_asks_once(tmp_path):
    judged(tmp_path, '["happy"]')
    found, engine = judged(tmp_path, "never read")
    assert engine.seen == []
    assert found["x"].labels == ("happy",)


def test_systems_must_cover_the_same_clips(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger, pytest.raises(ScoreError, match="differ in 1"):
        co_judge({"A": {"x": []}, "B": {}}, FakeEngine(), ledger)
