"""The judge's numbers, the 0.9 rule, and what is written for training."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib import filtering, prompts
from emolib.errors import DataError
from emolib.filtering import Pair, keep, keep_curve, make_pairs, parse_similarity
from emolib.ledger import Ledger
from tests.fakes import FakeEngine


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("0.85", 0.85),
        ("The similarity is 0.9.", 0.9),
        ("**Score: 1.0**", 1.0),
        ("1", 1.0),
        ("0", 0.0),
        (".7", 0.7),
        ("On a scale of 0 to 1, I would give 0.6", 0.6),
        ("a score between 0 and 1: 0.3", 0.3),
        ("0.85 out of 1", 0.85),
        ("1. happy\n2. glad\nScore: 0.95", 0.95),
        ("相似度为0.8。", 0.8),
        ("Both are 0.7; so 0.7", 0.7),
        ("**1**", 1.0),
        ("The score is **1**.", 1.0),
        ("相似度：1", 1.0),
        ("", None),
        ("They are similar.", None),
        ("85%", None),
        ("8/10", None),
        ("0.2 and 0.9", None),
        ("1.5", None),
        ("-0.5", None),
        ("between 0 and 1", None),
        ("10", None),
        ("version 0.8.1", None),
        ("There is 1 person in both.", None),
        ("sad p1 x 1 ni the", None),
    ],
)
def test_similarity_is_read_strictly(answer, score):
    assert parse_similarity(answer) == score


@given(st.text(max_size=200))
def test_similarity_is_none_or_in_range(answer):
    found = parse_similarity(answer)
    assert found is None or 0 <= found <= 1


def pair(i: int, similarity: float | None) -> Pair:
    return Pair(f"clip{i}", 0, f"{i}.png", ("a", "b"), (f"a says {i}", f"b says {i}"), similarity)


def test_exactly_at_the_threshold_stays():
    rows = keep([pair(0, 0.9), pair(1, 0.8999), pair(2, None)], threshold=0.9, max_pairs=0, seed=0)
    assert [row["images"] for row in rows] == [["0.png"]]


def test_the_coin_is_fair_seeded_and_independent_of_the_others():
    pairs = [pair(i, 1.0) for i in range(400)]
    rows = keep(pairs, threshold=0.9, max_pairs=0, seed=1)
    first = sum(row["provenance"]["caption_by"] == "a" for row in rows)
    assert 150 < first < 250
    assert keep(pairs, threshold=0.9, max_pairs=0, seed=1) == rows
    assert keep(pairs[7:8], threshold=0.9, max_pairs=0, seed=1) == [rows[7]]
    assert keep(pairs, threshold=0.9, max_pairs=0, seed=2) != rows


def test_the_target_count_is_respected():
    rows = keep([pair(i, 1.0) for i in range(50)], threshold=0.9, max_pairs=12, seed=0)
    assert len(rows) == 12
    assert len({row["images"][0] for row in rows}) == 12


def test_training_rows_are_what_swift_reads():
    [row] = keep([pair(3, 0.95)], threshold=0.9, max_pairs=0, seed=0)
    user, assistant = row["messages"]
    assert user["content"] == "<image>" + prompts.CAPTION.template
    assert assistant["content"] in ("a says 3", "b says 3")
    assert row["provenance"]["similarity"] == 0.95


def test_a_caption_cannot_smuggle_in_an_image_tag():
    row = filtering.training_row("x.png", "he holds <image> and <|im_end|>")
    assert "<image>" not in row["messages"][1]["content"]
    assert "<|im_end|>" not in row["messages"][1]["content"]


def captions(clip: str, **texts: str | None) -> list[dict]:
    return [
        {
            "clip": clip,
            "index": 0,
            "path": f"{clip}.png",
            "model": model,
            "text": text or "",
            "error": None if text is not None else "time-out",
        }
        for model, text in texts.items()
    ]


def test_failed_and_blank_captions_have_no_pair():
    rows = captions("x", a="good", b=None) + captions("y", a="good", b=" ")
    rows += captions("z", a="1", b="2", c="3")
    pairs = make_pairs(rows)
    assert [(p.clip, p.models) for p in pairs] == [
        ("z", ("a", "b")),
        ("z", ("a", "c")),
        ("z", ("b", "c")),
    ]


def test_two_captions_by_one_model_are_refused():
    with pytest.raises(DataError, match="two captions by a"):
        make_pairs(captions("x", a="1") + captions("x", a="2"))


def test_the_judge_sees_both_captions_once_and_is_remembered(tmp_path):
    engine = FakeEngine(lambda request: "0.95" if "glad" in request.prompt else "0.1")
    pairs = make_pairs(captions("x", a="happy", b="glad") + captions("y", a="<image>", b="sad"))
    with Ledger(tmp_path / "l.jsonl") as ledger:
        judged = filtering.judge(pairs, engine, ledger)
        assert [p.similarity for p in judged] == [0.95, 0.1]
        assert "1. happy\n2. glad" in engine.seen[0].prompt
        assert "<image>" not in engine.seen[1].prompt
        again = filtering.judge(pairs, FakeEngine(lambda r: "never asked"), ledger)
    assert again == judged


def test_keep_curve_falls_and_counts_all_pairs():
    curve = keep_curve([pair(0, 0.2), pair(1, 0.9), pair(2, None)], [0, 0.5, 1])
    assert [row["kept"] for row in curve] == [2, 1, 0]
    assert curve[0]["rate"] == pytest.approx(2 / 3)
