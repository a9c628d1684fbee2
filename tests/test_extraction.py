"""Emotion words in free descriptions."""

from __future__ import annotations

import csv

import pytest

from emolib.extraction import chinese_words, extract_labels
from emolib.scoring import lexicon
from tests.shared import shared


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("他并没有失望和难过", ()),
        ("因此，推测他的情感状态为感激、高兴、害羞。", ("grateful", "happy", "shy")),
        ("她没有生气，而是感到难过。", ("sad",)),
        ("没有明显的紧张或不安的迹象。", ()),
        ("他对此不满意。", ("dissatisfied",)),
        ("他并不高兴，但很平静。", ("displeased", "calm")),
        ("他不禁感到惊讶。", ("surprised",)),
        ("无法判断他是否生气。", ()),
        ("字幕“我不生气，我很高兴”，语气沮丧。", ("depressed",)),
        ("高兴，非常高兴", ("happy",)),
        ("He is not angry, but she looks worried and a little sad.", ("worried", "sad")),
        ("no signs of anger, sadness or fear", ()),
        ("It's hard to tell whether he is angry.", ()),
        ("He isn't happy.", ()),
        ("Not only surprised but delighted!", ("surprised", "delighted")),
        ('He says "I am so angry", smiling HAPPILY and happily.', ("smiling", "happily")),
        ("Without anger; then fear.", ("fear",)),
    ],
)
def test_words_negations_and_quotes(text, labels):
    found = extract_labels(text)
    assert found.labels == labels
    assert found.status == ("ok" if labels else "unparsed")
    assert found.raw == text


@pytest.mark.parametrize("text", ["", "  \n", None])
def test_no_text_is_empty(text):
    assert extract_labels(text).status == "empty"


def test_language_can_be_fixed():
    assert extract_labels("高兴 happy", "en").labels == ("happy",)
    assert extract_labels("高兴 happy", "zh").labels == ("happy",)
    assert extract_labels("高兴 sad").labels == ("happy",)
    with pytest.raises(ValueError, match="unknown language"):
        extract_labels("x", "fr")


def test_table_agrees_with_the_lexicon():
    table = chinese_words()
    assert len(table) > 500
    for chinese, english in table.items():
        assert lexicon.find(english).rule != "unknown", english
        if lexicon.find(chinese).rule != "unknown":
            assert lexicon.find(chinese).group == lexicon.find(english).group, chinese


@pytest.mark.shared
@pytest.mark.parametrize(("language", "per_clip"), [("chi", 2.3), ("eng", 3.6)])
def test_finds_the_class_of_real_descriptions(language, per_clip):
    """96 of 100 with some two (Chinese) to three and a half (English) words a description."""
    names = {
        "生气": "angry",
        "高兴": "happy",
        "担忧": "worried",
        "悲伤": "sad",
        "惊讶": "surprised",
    }
    with shared("data/emer/gt-chi.csv").open(encoding="utf-8-sig") as file:
        gold = [names[row["emotions"]] for row in csv.DictReader(file)]
    with shared(f"data/emer/gt-{language}.csv").open(encoding="utf-8-sig") as file:
        found = [extract_labels(row["reasons"]).labels for row in csv.DictReader(file)]
    hits = [
        lexicon.find(word).group in {lexicon.find(x).group for x in labels}
        for word, labels in zip(gold, found, strict=True)
    ]
    assert sum(hits) >= 95
    assert sum(map(len, found)) / len(found) < per_clip
