"""The judge's numbers, the 0.9 rule, and what is written for training."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib import filtering, prompts, selection
from emolib.engines.base import Reply, Token
from emolib.errors import DataError, EngineError
from emolib.filtering import Pair, make_pairs
from emolib.ledger import Ledger
from emolib.selection import keep, keep_curve
from emolib.similarity import expected_similarity, parse_similarity, yes_no_similarity
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
    row = selection.training_row("x.png", "he holds <image> and <|im_end|>")
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


def token(text: str, **top: float) -> Token:
    """A token with the probabilities of what might stand in its place."""
    options = {name.replace("_", "."): p for name, p in top.items()} or {text: 1.0}
    options.setdefault(text, 0.0)
    logs = {t: math.log(p) if p else -99.0 for t, p in options.items()}
    return Token(text, logs[text], tuple(sorted(logs.items(), key=lambda pair: -pair[1])))


@pytest.mark.parametrize(
    ("answer", "tokens", "value"),
    [
        ("0.85", ["0", ".", "8", "5"], 0.85),
        ("The score is 0.9.", ["The", " score", " is", " ", "0", ".", "9", "."], 0.9),
        ("Score:0.9", ["Score", ":0.", "9"], 0.9),
        ("I say 0.7; so 0.7", ["I say", " 0.7", "; so", " 0.7"], 0.7),
        ("1", ["1"], 1.0),
        ("1. glad\n2. sad\nScore: 1", ["1", ".", " glad\n", "2. sad\n", "Score:", " 1"], 1.0),
        ("similar", ["similar"], None),
        ("0.9", ["0", ".", "8"], None),
        ("0.9", [], None),
    ],
)
def test_a_sure_judges_expected_score_is_what_it_wrote(answer, tokens, value):
    found = expected_similarity(answer, [token(t) for t in tokens])
    assert (found and found.value) == (value and pytest.approx(value))


def test_expected_score_weighs_what_might_have_been_written():
    tokens = [
        token("0", **{"0": 0.8, "1": 0.2}),
        token("."),
        token("9", **{"9": 0.5, "7": 0.25, "x": 0.25}),
        token("5", **{"5": 0.5, "0": 0.25, "\n": 0.25}),
    ]
    tail = 0.5 * 0.95 + 0.25 * 0.90 + 0.25 * 0.9  # the end of line leaves 0.9
    tenth = (0.5 * tail + 0.25 * 0.7) / 0.75  # "0.x" is no number
    found = expected_similarity("0.95", tokens)
    assert found.value == pytest.approx(0.8 * tenth + 0.2 * 1.0)
    assert found.mass == pytest.approx(1)


def test_words_instead_of_a_number_lower_the_mass_and_not_the_score():
    tokens = [token("1", **{"1": 0.3, "They": 0.6, "5": 0.05, "0": 0.05})]
    found = expected_similarity("1", tokens)
    assert found.mass == pytest.approx(0.35)
    assert found.value == pytest.approx((0.3 * 1 + 0.05 * 0.5) / 0.35)


@given(
    st.lists(st.tuples(st.text("01.89 x", max_size=3), st.floats(-5, 0)), min_size=1, max_size=6)
)
def test_expected_score_stays_in_range(options):
    tokens = [Token("0", -0.5, tuple(options)), Token(".", 0.0), Token("4", -1.0, tuple(options))]
    found = expected_similarity("0.4", tokens)
    assert 0 <= found.value <= 1
    assert 0 <= found.mass <= 1


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        ([token("Yes", Yes=0.6, No=0.2, Maybe=0.2)], 0.75),
        ([token("No", No=0.9, yes=0.1)], 0.1),
        ([token(" "), token("yes", yes=0.5, YES=0.25, no=0.25)], 0.75),
        ([token("是", **{"是": 0.7, "否": 0.3})], 0.7),
        ([token("Maybe", Maybe=0.7, Yes=0.3)], None),
        ([], None),
    ],
)
def test_yes_against_no(tokens, value):
    found = yes_no_similarity(tokens)
    assert (found and found.value) == (value and pytest.approx(value))


def test_probabilities_are_asked_for_and_kept(tmp_path):
    pairs = make_pairs(captions("x", a="happy", b="glad"))

    def answer(request):
        assert request.alternatives == filtering.ALTERNATIVES
        if "yes or no" in request.prompt:
            return Reply(request.id, text="Yes", tokens=(token("Yes", Yes=0.9, No=0.1),))
        return Reply(
            request.id, text="0.8", tokens=(token("0."), token("8", **{"8": 0.5, "6": 0.5}))
        )

    for scoring, value in (("expected", 0.7), ("yes-no", 0.9)):
        with Ledger(tmp_path / "l.jsonl") as ledger:
            [judged] = filtering.judge(pairs, FakeEngine(answer), ledger, scoring=scoring)
            again = filtering.judge(pairs, FakeEngine(None), ledger, scoring=scoring)
        assert judged.similarity == pytest.approx(value)
        assert again == [judged]


def test_a_judge_without_probabilities_is_a_clear_stop(tmp_path):
    pairs = make_pairs(captions("x", a="happy", b="glad"))
    with (
        Ledger(tmp_path / "l.jsonl") as ledger,
        pytest.raises(EngineError, match="scoring: expected needs token probabilities"),
    ):
        filtering.judge(pairs, FakeEngine(lambda r: "0.8"), ledger, scoring="expected")


def test_both_orders_are_asked_and_their_difference_told(tmp_path):
    pairs = make_pairs(captions("x", a="happy", b="glad") + captions("y", a="c", b="d"))
    engine = FakeEngine(
        lambda r: (
            "no idea" if "1. d" in r.prompt else f"0.{'95' if '1. happy' in r.prompt else '85'}"
        )
    )
    with Ledger(tmp_path / "l.jsonl") as ledger:
        judged = filtering.judge(pairs, engine, ledger, both_orders=True)
    assert [p.orders for p in judged] == [(0.95, 0.85), (0.85, None)]
    assert judged[0].similarity == pytest.approx(0.9)
    assert judged[1].similarity is None, "half an answer is none"
    check = selection.order_check(judged, 0.9)
    assert check == {"both orders": 1, "order gap": 0.1, "order flips": 1}
    assert selection.order_check([pair(0, 0.9)], 0.9) == {}


def test_an_image_is_kept_once_however_many_of_its_captions_agree(tmp_path):
    texts = captions("z", a="1", b="2", c="3") + captions("y", a="1", b="2", c="3")
    with Ledger(tmp_path / "l.jsonl") as ledger:
        judged = filtering.judge(make_pairs(texts), FakeEngine(lambda r: "1"), ledger)
    rows = keep(judged, threshold=0.9, max_pairs=0, seed=0)
    assert sorted(row["images"][0] for row in rows) == ["y.png", "z.png"]


def test_provenance_says_who_wrote_it_who_agreed_and_who_judged(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger:
        judged = filtering.judge(
            make_pairs(captions("x", a="happy", b="glad")), FakeEngine(lambda r: "0.93"), ledger
        )
    [row] = keep(judged, threshold=0.9, max_pairs=0, seed=5)
    by = row["provenance"]
    assert {by["caption_by"], by["agrees_with"]} == {"a", "b"}
    assert (by["judge"], by["similarity"], by["threshold"], by["seed"]) == ("fake", 0.93, 0.9, 5)
    assert by["prompt"] == prompts.CAPTION.sha


def test_a_shortfall_of_pairs_is_told():
    counts = selection.count_judged(
        [pair(0, 0.95), pair(1, None)], [{}], threshold=0.9, wanted=26_000
    )
    assert (counts["kept"], counts["short of max_pairs by"], counts["unparsed"]) == (1, 25_999, 1)
