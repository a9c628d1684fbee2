"""Whole columns parse exactly as cell by cell, and texts score exactly as lists."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolib import scoring
from emolib.errors import ScoreError
from emolib.labels import parse_labels
from emolib.scoring import columns
from emolib.scoring.cached import CachedGrouping, parse_groups, representatives
from emolib.scoring.grouping import ExactGrouping
from tests.test_labels import SHAPES

word = st.sampled_from(
    [
        "happy",
        "Sad",
        "not glad",
        "so-so",
        "don't",
        "a, b",
        "x]",
        "[y",
        " z ",
        "",
        'q"r',
        "开心",
        "\1",
    ]
)
lists = st.lists(word, max_size=4)
cells = st.one_of(
    lists.map(repr),
    lists.map(lambda x: repr(x).replace("'", '"')),
    st.text(max_size=12),
    st.sampled_from([shape[0] for shape in SHAPES if isinstance(shape[0], str)]),
    st.sampled_from(
        ["['a''b']", "['a'b']", "['a', b]", "['a'],['b']", "['']", "[']", "['a']x", "['0')a']"]
    ),
    st.none(),
    lists,
    st.just(float("nan")),
)


@pytest.mark.parametrize("mode", ["tolerant", "mer2024", "mer2025"])
@given(column=st.lists(cells, max_size=12))
@settings(max_examples=120)
def test_column_equals_cell_by_cell(mode, column):
    found = columns.parse_column(column, mode)
    parsed = [parse_labels(cell, mode) for cell in column]
    assert found.lists() == [p.labels for p in parsed]
    assert found.statuses == {
        status: sum(p.status == status for p in parsed) for status in found.statuses
    }
    assert found.unparsed == [i for i, p in enumerate(parsed) if p.status == "unparsed"]


def test_chunks_are_joined_in_order(monkeypatch):
    column = [repr([f"w{i}", f"v{i % 3}"]) if i % 5 else "no list. here." for i in range(50)]
    whole = columns.parse_column(column, "tolerant")
    monkeypatch.setattr(columns, "CHUNK", 7)
    parts = columns.parse_column(column, "tolerant")
    assert parts.lists() == whole.lists()
    assert (parts.statuses, parts.unparsed) == (whole.statuses, whole.unparsed)


@given(st.lists(st.lists(st.lists(word, max_size=3), max_size=4).map(repr), max_size=8))
@settings(max_examples=120)
def test_groups_equal_the_plain_parser(answers):
    found = columns.parse_groups_column(answers)
    mappings: list[dict[str, str]] = [{} for _ in answers]
    for row, code, first in zip(found.rows, found.codes, found.firsts, strict=True):
        mappings[row][found.vocab[code]] = found.vocab[first]
    for row, answer in enumerate(answers):
        if row not in found.odd:
            plain = representatives(parse_groups(answer.lower()))
            if len(plain) == sum(map(len, parse_groups(answer))):  # a partition
                assert mappings[row] == plain


TEXTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abcd"), min_size=1, max_size=3),
        st.lists(st.sampled_from("abcde"), max_size=3),
    ),
    min_size=1,
    max_size=9,
)


@given(TEXTS)
@settings(max_examples=30)
def test_texts_score_as_lists(pairs):
    gold = {f"c{i}": pair[0] for i, pair in enumerate(pairs)}
    pred = {f"c{i}": pair[1] for i, pair in enumerate(pairs)}
    texts = [{name: repr(labels) for name, labels in side.items()} for side in (gold, pred)]
    for grouping in (ExactGrouping(), CachedGrouping(dict.fromkeys(gold, "[['a', 'b'], ['c']]"))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("emolib.scoring.evaluate.CHUNK", 2)
            a = scoring.score_texts(*texts, grouping, resamples=20)
        b = scoring.score(gold, pred, grouping, resamples=20)
        assert a.to_json() == b.to_json()
        assert a.per_clip.equals(b.per_clip)


def test_policies_of_texts():
    gold = {"a": "['x']", "b": "[]", "c": "['y']"}
    pred = {"a": "['x']", "b": "['x']", "d": "He is sad today."}
    with pytest.raises(ScoreError, match="no prediction"):
        scoring.score_texts(gold, pred, ExactGrouping())
    options = {"missing": "zero", "extra": "drop", "resamples": 0}
    with pytest.raises(ScoreError, match="no gold label"):
        scoring.score_texts(gold, pred, ExactGrouping(), **options)
    result = scoring.score_texts(gold, pred, ExactGrouping(), empty_gold="drop", **options)
    assert result.n == 2
    assert result.accuracy == 0.5
    assert result.names == {"missing_zeroed": 1, "extra_dropped": 1, "empty_gold_dropped": 1}
    pred = {"a": "He is sad today.", "b": "[z]", "c": "['y']"}
    result = scoring.score_texts(gold, pred, ExactGrouping(), empty_gold="drop", resamples=0)
    assert result.names == {"empty_gold_dropped": 1, "unparsed_predictions": 1}
    with pytest.raises(ScoreError, match=r"predicted labels of 'a' have no '\['"):
        scoring.score_texts(gold, pred, ExactGrouping(), mode="mer2024", empty_gold="drop")


def test_a_label_given_twice_to_one_clip_in_stored_groups():
    answers = {f"c{i}": "[['a', 'b'], ['c']]" for i in range(9)} | {"c5": "[['a'], ['b', 'a']]"}
    gold = {name: ["a"] for name in answers}
    with pytest.raises(ScoreError, match=r"clip 'c5' has \['a'\] in more than one group"):
        scoring.score(gold, gold, CachedGrouping(answers))
