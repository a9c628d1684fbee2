from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.labels import normalise, parse_labels
from tests.shared import shared

SHAPES = [
    # well-formed lists
    ("['happy', 'sad']", ["happy", "sad"], "ok"),
    ('["happy", "sad"]', ["happy", "sad"], "ok"),
    ("[“happy”, “sad”]", ["happy", "sad"], "ok"),
    ("[„happy”]", ["happy"], "ok"),
    ('{"labels": ["happy"]}', ["happy"], "ok"),
    ('```json\n["happy"]\n```', ["happy"], "ok"),
    (["happy", "sad"], ["happy", "sad"], "ok"),
    (np.array(["happy", "sad"]), ["happy", "sad"], "ok"),
    # lists that need repair
    ("[happy, sad]", ["happy", "sad"], "repaired"),
    ('["a, b"]', ["a", "b"], "repaired"),
    (["a, b"], ["a", "b"], "repaired"),
    ('["**happy**"]', ["happy"], "repaired"),
    ('["Happy", "Sad "]', ["happy", "sad"], "repaired"),
    ("['slightly happy', 'sad and angry']", ["happy", "sad", "angry"], "repaired"),
    ("['happy/glad']", ["happy", "glad"], "repaired"),
    ("['a'], ['b']", ["a", "b"], "repaired"),
    ('["calm"] or ["thoughtful"]', ["calm", "thoughtful"], "repaired"),
    ('["happy", "sad', ["happy", "sad"], "repaired"),
    ("[happy", ["happy"], "repaired"),
    ('{"emotions": ["happy", "sad', ["happy", "sad"], "repaired"),
    ('{"emotions": ["happy"], "reason": "he [smi', ["happy"], "repaired"),
    (
        '{"emotions": [{"label": "happy", "score": 0.9}, {"label": "sad"',
        ["happy", "sad"],
        "repaired",
    ),
    ('{"emotions": [{"label": "happy", "score": 0.9}]}', ["happy"], "ok"),
    ('[{"emotion": "happy"}, {"emotion": "sad"}]', ["happy", "sad"], "ok"),
    ('{"emotions": [', [], "empty"),
    ('<think>At first ["angry"], but', [], "empty"),
    ('At first ["angry"], but</think>sad', ["sad"], "repaired"),
    ("【开心，难过】", ["开心", "难过"], "repaired"),
    ("['happy', 'happy']", ["happy"], "repaired"),
    # the list among prose
    ('The man looks sad. ["sad"] I hope it helps!', ["sad"], "ok"),
    ('In frame [1] he [2] smiles. ["happy"]. Then [he smiles]', ["happy"], "repaired"),
    ('He says ["I am fine"] but ... ["sad", "lonely"]', ["sad", "lonely"], "repaired"),
    ('["neutral"]\n\nNote: [labels] are my own', ["neutral"], "repaired"),
    ("Sure! Here is the list: [happy, sad]", ["happy", "sad"], "repaired"),
    ("<think>[angry]</think>[happy, sad]", ["happy", "sad"], "repaired"),
    # no bracket
    ("happy", ["happy"], "repaired"),
    ("happy, sad and angry.", ["happy", "sad", "angry"], "repaired"),
    ("happy\nsad", ["happy", "sad"], "repaired"),
    ("1. Happy\n2. Sad", ["happy", "sad"], "repaired"),
    ("1. **Happy**: The man smiles.\n2. **Sad**: cries", ["happy", "sad"], "repaired"),
    ("- happy\n- sad", ["happy", "sad"], "repaired"),
    ("* Happy\n* Sad", ["happy", "sad"], "repaired"),
    ("**happy**, **sad**", ["happy", "sad"], "repaired"),
    ("The emotions are **happy** and **sad**.", ["happy", "sad"], "repaired"),
    ("He is angry because he lost.\n\nEmotions: angry, sad", ["angry", "sad"], "repaired"),
    ("His expression can be summarized as: calm, focused.", ["calm", "focused"], "repaired"),
    ("开心、难过", ["开心", "难过"], "repaired"),
    ("not happy", ["not happy"], "repaired"),
    ("(happy, sad)", ["happy", "sad"], "repaired"),
    ("1. Anger 2. Sadness", ["anger", "sadness"], "repaired"),
    ("- Emotion: Angry\n- Intensity: High", ["angry"], "repaired"),
    ("Emotions:\n- angry\n- sad", ["angry", "sad"], "repaired"),
    ('["happy"].\n["sad"].', ["happy", "sad"], "repaired"),
    ('{"emotion": "happy"}', ["happy"], "ok"),
    # apostrophes
    ("[\"don't believe\", 'doubt']", ["don't believe", "doubt"], "ok"),
    ("['don\\'t believe']", ["don't believe"], "repaired"),
    ("['don’t believe', 'sad']", ["don't believe", "sad"], "ok"),
    # nothing said
    ("", [], "empty"),
    ("[]", [], "empty"),
    ("[ ]", [], "empty"),
    ('["**"]', [], "empty"),
    ("nan", [], "empty"),
    (float("nan"), [], "empty"),
    (None, [], "empty"),
    ([], [], "empty"),
    # text, but no labels in it
    (3, [], "unparsed"),
    ("The man is happy.", [], "unparsed"),
    ('{"emotions": {"happy": 1}}', [], "unparsed"),
    ('["a person smiling"]', [], "unparsed"),
    ("I can't determine the emotion.", [], "unparsed"),
    ("视频中男子很生气。他大喊。", [], "unparsed"),
    ('["The man looks sad and is about to cry."]', [], "unparsed"),
]


@pytest.mark.parametrize(("text", "labels", "status"), SHAPES, ids=lambda x: str(x)[:30])
def test_every_shape_is_read(text, labels, status):
    parsed = parse_labels(text)
    assert list(parsed.labels) == labels
    assert parsed.status == status


def test_raw_text_is_kept_unchanged():
    text = '  Well… ["**Happy**"]\n'
    assert parse_labels(text).raw == text


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['happy', 'sad']", ["happy", "sad"]),
        ("['Happy']", ["happy"]),
        ("[happy, sad]", ["happy, sad"]),  # unquoted: one label
        ("[\"don't believe\", 'doubt']", ["don", "t believe", "doubt"]),
        ("['happy ']", ["happy "]),  # no strip
        ("x ['a'] ['b']", ["a"]),
        ("['a', 'b'", ["a", "b"]),
        ("[]", []),
        ("", []),
    ],
)
def test_mer2024_mode_keeps_the_official_faults(text, labels):
    assert list(parse_labels(text, "mer2024").labels) == labels


@pytest.mark.parametrize(("text"), ["happy", " ", 3])
def test_mer2024_mode_reports_where_the_official_parser_crashes(text):
    assert parse_labels(text, "mer2024").status == "unparsed"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[happy, sad]", ["happy", "sad"]),
        ("Output: [happy, sad].", ["output: [happy", "sad]."]),
        ("happy", ["happy"]),
        (["Happy", "sad"], ["happy", "sad"]),
    ],
)
def test_mer2025_mode_keeps_the_official_faults(text, labels):
    assert list(parse_labels(text, "mer2025").labels) == labels


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="tolerant, mer2024"):
        parse_labels("[]", "strict")  # type: ignore[arg-type]


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_exception_and_labels_are_normal(text):
    for mode in ("tolerant", "mer2024", "mer2025"):
        parsed = parse_labels(text, mode)
        assert parsed.raw == text
        assert bool(parsed.labels) == (parsed.status in ("ok", "repaired"))
    labels = parse_labels(text).labels
    assert len(set(labels)) == len(labels)
    assert all(normalise(label) == label for label in labels)


@given(st.text(max_size=60))
def test_normalise_twice_is_normalise_once(text):
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.shared
def test_descriptions_of_real_models_hold_no_label_list():
    seen = 0
    for path in sorted(shared("data/mllm_outputs").glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                text = list(row.values())[1]
                assert parse_labels(text).status == "unparsed", text
                seen += 1
    assert seen == 700


@pytest.mark.shared
def test_reference_descriptions_hold_no_label_list():
    with shared("data/emer/final-EMER-reason.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert parse_labels(row["chinese"]).status == "unparsed"
            assert parse_labels(row["english"]).status == "unparsed"
            listed = parse_labels(row["english"] + '\n\n["happy", "sad"]')
            assert (listed.labels, listed.status) == (("happy", "sad"), "ok")


words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=10).filter(
    lambda w: parse_labels([w]).status == "ok"
)


@given(st.lists(words, min_size=1, max_size=6, unique=True), st.sampled_from([repr, str]))
def test_a_python_list_reads_back_as_itself(labels, write):
    assert list(parse_labels(write(labels)).labels) == labels
    assert list(parse_labels("Some prose first. " + write(labels)).labels) == labels


def test_a_set_is_read_in_a_fixed_order():
    found = parse_labels({"sad", "happy"})
    assert (list(found.labels), found.status) == (["happy", "sad"], "ok")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('["happy", "sad", "wor', ["happy", "sad"]),
        ('["happy", "sad"', ["happy", "sad"]),
        ('["happy", "sad"]', ["happy", "sad"]),
        ('["happy", "don\'t bel', ["happy"]),
        ("[happy, sad, wor", ["happy", "sad"]),
        ("[happy", []),
        ('{"emotions": ["happy", "sa', ["happy"]),
        ("Emotions: happy, sad, wor", ["happy", "sad"]),
        ("【开心，难", ["开心"]),
        ('["happy"]["happy"]["hap', ["happy"]),
        ("The person seems to be very hap", []),
        ("", []),
    ],
)
def test_half_a_word_at_the_token_limit_is_no_label(text, labels):
    assert list(parse_labels(text, cut=True).labels) == labels


@given(st.lists(st.sampled_from(["happy", "sad", "self-doubt", "don't care", "难过"]), min_size=1))
def test_a_whole_list_loses_nothing_at_the_token_limit(labels):
    text = f"He smiles, slowly. {json.dumps(labels, ensure_ascii=False)}"
    assert parse_labels(text, cut=True) == parse_labels(text)


@given(st.text("[]\"',，a bc\n{}<>/", max_size=40))
def test_cut_text_never_raises(text):
    parse_labels(text, cut=True)
