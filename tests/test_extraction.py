"""Labels and emotion words in free descriptions."""

from __future__ import annotations

import csv
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.extraction import emotion_words, extract_labels
from emolib.labels import chinese_words
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
    found = emotion_words(text)
    assert found.labels == labels
    assert found.status == ("ok" if labels else "unparsed")
    assert found.raw == text


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        # what is concluded, not every sign on the way to it
        (
            "His voice trembles and his eyes look sad. He frowns, and he seems tense. "
            "Overall, the man's emotional state is one of grief and regret.",
            ("grief", "regret"),
        ),
        (
            "The woman's fists are clenched. It can be inferred that she is experiencing a mix of "
            "emotions, including anger, disappointment, and possibly jealousy.",
            ("anger", "disappointment", "jealousy"),
        ),
        # a word that is concluded alone is joined by what is seen
        ("She looks exhausted. In conclusion, she feels lonely.", ("exhausted", "lonely")),
        # the reasons for a conclusion do not add to it
        (
            "Her emotional state is relief and gratitude. The reasoning is as follows: "
            "1. Her shoulders drop, which may show that she felt nervous before. "
            "2. She nods, a sign of agreement. In conclusion, she is relieved and grateful.",
            ("relief", "gratitude"),
        ),
        # a list of states, numbered
        (
            "The following emotions can be inferred: 1. Guilt and shame: he looks down. "
            "2. Fear: he steps back.",
            ("guilt", "shame", "fear"),
        ),
        # what was concluded before the subtitle was added is superseded
        (
            "In the video, a man is waving. Overall, he feels happy and proud. The subtitle says "
            '"Leave me alone." In the text, it can be inferred that his emotional state is '
            "annoyance and impatience.",
            ("annoyance", "impatience"),
        ),
        # ... unless nothing is concluded from the subtitle
        (
            "Overall, he feels happy and proud. The subtitle says something foreign. He looks pale "
            "and shy.",
            ("happy", "proud"),
        ),
        # the room and the other person are not the character
        (
            "The other man looks cheerful and relaxed. The girl looks bored and annoyed. "
            "The atmosphere is tense.",
            ("bored", "annoyed"),
        ),
        # a conclusion is stronger than what somebody may feel
        (
            "She may feel tired or nervous. Overall, she feels lonely and jealous.",
            ("lonely", "jealous"),
        ),
        # doubt ends with its clause
        (
            "I cannot determine the emotions of the man, but he appears to be furious or hurt.",
            ("furious", "hurt"),
        ),
        ("It is difficult to determine whether she is angry or sad.", ()),
        ("There is no sign of fear or pain, and his emotional state cannot be determined.", ()),
        ("The man appears to be determined and brave.", ("determined", "brave")),
        # the writer's own state
        ("I'd be happy to help, but I am uncertain. The man sits on a sofa.", ()),
        # words that are used, and words that are said
        ('The text describes her as "heartbroken and jealous."', ("heartbroken", "jealous")),
        ("He shouts 'I am so proud and happy!' His emotional state is fury.", ("fury",)),
        # a quotation that is never closed hides nothing
        ('The subtitle is: "Oh, so his emotional state is panic or horror.', ("panic", "horror")),
        # a word that is about the scene until a state is stated
        ("The content of the video is about hard work.", ()),
        ("She is happy and content.", ("happy", "content")),
        ("The man feels engaged and focused.", ("engaged", "focused")),
        # the sign of a feeling counts where nothing else is named
        ("The man shows strong negative emotions.", ("negative emotions",)),
        ("She feels positive and joyful.", ("joyful",)),
        # behavior stands for the feeling it shows, where no feeling is stated
        ("The boy smiles and waves.", ("happy",)),
        ("The woman is crying on a sofa.", ("sad",)),
        ("She smiles, but she feels lonely and guilty.", ("lonely", "guilty")),
        # a text that is one list of states may name any
        ("The character's emotional state is happy, at a loss for words.",
         ("happy", "at a loss for words")),
        ("The character's emotional state is reflected in his calm voice. He is sad.", ("sad",)),
        # Chinese characters in an English text
        ('The subtitle is "你好". She feels worried and ill at ease.', ("worried", "ill at ease")),
        # Chinese: the conclusion
        ("她一开始很高兴。总体而言，她感到生气。", ("angry",)),
    ],
)  # fmt: skip
def test_states_of_the_main_character(text, labels):
    assert extract_labels(text).labels == labels


@pytest.mark.parametrize("read", [extract_labels, emotion_words])
@pytest.mark.parametrize("text", ["", "  \n", None])
def test_no_text_is_empty(text, read):
    assert read(text).status == "empty"


@pytest.mark.parametrize("read", [extract_labels, emotion_words])
def test_language_can_be_fixed(read):
    assert read("高兴 happy", "en").labels == ("happy",)
    assert read("高兴 happy", "zh").labels == ("happy",)
    assert read("高兴 sad").labels == ("happy",)
    with pytest.raises(ValueError, match="unknown language"):
        read("x", "fr")


_PIECES = """
    the man woman he she feels is appears to be in a state of emotional emotions such as joy sad
    angry content neutral crying smiles not but overall because subtitle says " ' ‘ ’ “ ” , . ; : 1.
    I am based on with sense it can inferred that 高兴 。 「
"""
_TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from([*_PIECES.split(), "\n"]), max_size=60).map(" ".join),
)
_SHOWN = {"happy": r"smil|grin|laugh", "sad": r"cr(?:y|ie)|sob|weep|tear"}


@given(_TEXTS)
def test_labels_are_words_of_the_text(text):
    found = extract_labels(text, "en")
    assert found.raw == text
    assert len(set(found.labels)) == len(found.labels)
    bare = text.lower().replace("’", "'")
    for label in found.labels:
        assert label in bare or re.search(_SHOWN.get(label, r"(?!)"), bare), label
    assert (found.status == "ok") == bool(found.labels)


@given(_TEXTS)
def test_reading_its_own_labels_changes_nothing(text):
    labels = extract_labels(text, "en").labels
    if labels:
        again = extract_labels(f"The character's emotional state is {', '.join(labels)}.")
        assert again.labels == labels


@pytest.mark.parametrize(
    "piece",
    [
        "he is in a ",
        "emotions ",
        "I am ",
        "a sense of ",
        "「",
        '"',
        "can't ",
        "the man ",
        "- ",
        "as ",
    ],
)
def test_long_texts_are_read(piece):
    assert extract_labels(piece * 20_000 + ". She is sad.", "en").raw


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
        found = [emotion_words(row["reasons"]).labels for row in csv.DictReader(file)]
    hits = [
        lexicon.find(word).group in {lexicon.find(x).group for x in labels}
        for word, labels in zip(gold, found, strict=True)
    ]
    assert sum(hits) >= 95
    assert sum(map(len, found)) / len(found) < per_clip
