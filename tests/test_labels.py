from __future__ import annotations

import csv
import html
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
    # 和 and its like, which are letters of words, too
    ("['平和', '温和']", ["平和", "温和"], "ok"),
    ("祥和、柔和", ["祥和", "柔和"], "repaired"),
    ("['和蔼', '和善']", ["和蔼", "和善"], "ok"),
    ("['心平气和']", ["心平气和"], "ok"),
    ("['迫不及待']", ["迫不及待"], "ok"),
    ("高兴和悲伤", ["高兴", "悲伤"], "repaired"),
    ("平和和温和", ["平和", "温和"], "repaired"),
    ("高兴以及愤怒与失望", ["高兴", "愤怒", "失望"], "repaired"),
    # wrappers
    ("<think>\nHe frowns.\n</think>\n<answer>angry</answer>", ["angry"], "repaired"),
    ("<answer>angry, sad</answer>", ["angry", "sad"], "repaired"),
    ('<ANSWER>["angry"]', ["angry"], "ok"),
    (
        "<think>x</think><answer><|begin_of_box|>happy, sad<|end_of_box|></answer>",
        ["happy", "sad"],
        "repaired",
    ),
    ("<think>x</think>\n\\boxed{angry}", ["angry"], "repaired"),
    ("So it is $\\boxed{\\text{angry, sad}}$.", ["angry", "sad"], "repaired"),
    ("happy, sad<|im_end|>", ["happy", "sad"], "repaired"),
    ("happy, sad</s>", ["happy", "sad"], "repaired"),
    ("happy, sad<|endoftext|>user: what?", ["happy", "sad"], "repaired"),
    ("<|im_start|>assistant\nhappy, sad<|im_end|>", ["happy", "sad"], "repaired"),
    ("ASSISTANT: happy, sad", ["happy", "sad"], "repaired"),
    ("assistant\nhappy, sad", ["happy", "sad"], "repaired"),
    ("助手：开心、难过", ["开心", "难过"], "repaired"),
    ("[&quot;happy&quot;, &#39;sad&#39;]", ["happy", "sad"], "ok"),
    ("happy &amp; sad", ["happy", "sad"], "repaired"),
    ("[u'happy', u\"sad\"]", ["happy", "sad"], "ok"),
    ("[np.str_('happy'), np.str_('sad')]", ["happy", "sad"], "ok"),
    ("['happy' 'sad'\n 'calm']", ["happy", "sad", "calm"], "ok"),
    ("array(['happy', 'sad'], dtype='<U5')", ["happy", "sad"], "ok"),
    # objects, in which only some keys hold labels
    ('[{"emotion": "happy", "reason": "smiling"}]', ["happy"], "ok"),
    ('{"primary_emotion": "happy", "secondary_emotions": ["calm"]}', ["happy", "calm"], "ok"),
    ('{"emotion": "happy", "reason": "She smiles"}', ["happy"], "ok"),
    ('{"emotions": [{"emotion": "happy", "evidence": "she smiles"}]}', ["happy"], "ok"),
    ('{"audioEmotion": "happy", "note": "loud", "情绪": "sad"}', ["happy", "sad"], "ok"),
    ('{"emotion": "happy", "reason": "she smi', ["happy"], "repaired"),
    ('[{"emotion": "happy", "reason": "x"}, {"emotion": "sad", "rea', ["happy", "sad"], "repaired"),
    # headings
    ("Primary emotion: angry\nSecondary emotion: sad", ["angry", "sad"], "repaired"),
    (
        "**Primary emotion:** angry\n**Secondary emotions:** sad, lonely",
        ["angry", "sad", "lonely"],
        "repaired",
    ),
    ("Visual emotion: happy\nAudio emotion: nervous", ["happy", "nervous"], "repaired"),
    ("Visual emotion: happy\nFinal emotion: nervous", ["nervous"], "repaired"),
    ("主要情绪：生气\n次要情绪：难过、失望", ["生气", "难过", "失望"], "repaired"),
    ("[Emotion] happy, sad", ["happy", "sad"], "repaired"),
    ("[Emotions] [happy, sad]", ["happy", "sad"], "repaired"),
    ("【情绪】开心、难过", ["开心", "难过"], "repaired"),
    ("主要情绪：开心", ["开心"], "repaired"),
    ("Vibe: happy, sad", ["happy", "sad"], "repaired"),
    ("Happy: she smiles", ["happy"], "repaired"),
    # numbers, separators and tables
    ("(1) happy (2) sad", ["happy", "sad"], "repaired"),
    ("Emotions: 1) happy, 2) sad", ["happy", "sad"], "repaired"),
    ("①开心②难过", ["开心", "难过"], "repaired"),
    ("1️⃣ happy 2️⃣ sad", ["happy", "sad"], "repaired"),
    ("happy - sad – angry", ["happy", "sad", "angry"], "repaired"),
    ("calm -> angry → sad", ["calm", "angry", "sad"], "repaired"),
    ("happy · sad • calm", ["happy", "sad", "calm"], "repaired"),
    ("• Happy: he smiles\n• Sad: he cries", ["happy", "sad"], "repaired"),
    ("happy، sad", ["happy", "sad"], "repaired"),
    ("😊 happy, 😢 sad", ["happy", "sad"], "repaired"),
    ("happy😊sad", ["happy", "sad"], "repaired"),
    (
        "| Emotion | Reason |\n|---|---|\n| happy | smiles |\n| sad | cries |",
        ["happy", "sad"],
        "repaired",
    ),
    # "empty" is an emotion in a list; n/a is none
    ("['sad', 'empty']", ["sad", "empty"], "ok"),
    ("['empty']", ["empty"], "ok"),
    ("empty", [], "empty"),
    ("n/a", [], "empty"),
    ("['n/a']", [], "empty"),
    ("😊", [], "empty"),
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


EMOTIONS = st.sampled_from(
    ["happy", "sad", "at a loss", "self-doubt", "empty", "calm", "平和", "高兴", "温和", "失望"]
)
WRAPPINGS = {
    "python": repr,
    "json": lambda x: json.dumps(x, ensure_ascii=False),
    "python 2": lambda x: "[" + ", ".join(f"u'{one}'" for one in x) + "]",
    "numpy": lambda x: "[" + " ".join(f"'{one}'" for one in x) + "]",
    "answer tag": lambda x: f"<think>[fear]</think><answer>{', '.join(x)}</answer>",
    "box": lambda x: f"<|begin_of_box|>{', '.join(x)}<|end_of_box|>",
    "boxed": lambda x: "\\boxed{" + ", ".join(x) + "}",
    "end token": lambda x: f"{', '.join(x)}<|im_end|>",
    "role": lambda x: f"ASSISTANT: {', '.join(x)}</s>",
    "object": lambda x: json.dumps({"emotions": x, "reason": "He smiles, slowly"}),
    "objects": lambda x: json.dumps([{"emotion": one, "score": 0.5} for one in x]),
    "heading": lambda x: f"He smiles.\n\nEmotions: {', '.join(x)}",
    "bracketed heading": lambda x: f"[Emotions] {', '.join(x)}",
    "Chinese heading": lambda x: f"主要情绪：{'、'.join(x)}",
    "numbers": lambda x: "\n".join(f"{n}. {one}" for n, one in enumerate(x, 1)),
    "numbers in a line": lambda x: " ".join(f"({n}) {one}" for n, one in enumerate(x, 1)),
    "circled": lambda x: " ".join(chr(0x245F + n) + one for n, one in enumerate(x, 1)),
    "bullets": lambda x: "\n".join(f"• **{one}**: he smiles" for one in x),
    "dashes": lambda x: " – ".join(x),
    "arrows": lambda x: " → ".join(x),
    "dots": lambda x: " · ".join(x),
    "Arabic comma": lambda x: "، ".join(x),
    "emoji": lambda x: ", ".join(f"😊 {one}" for one in x),
    "entities": lambda x: html.escape(repr(x)),
    "table": lambda x: "\n".join(
        ["| Emotion | Why |", "|:--|---|", *(f"| {o} | x y |" for o in x)]
    ),
}


@given(st.lists(EMOTIONS, min_size=2, max_size=6, unique=True), st.sampled_from(list(WRAPPINGS)))
def test_a_list_is_the_same_list_however_it_is_wrapped(labels, kind):
    assert list(parse_labels(WRAPPINGS[kind](labels)).labels) == labels


@given(st.lists(EMOTIONS, min_size=1, max_size=6, unique=True))
def test_what_was_read_is_read_again_unchanged(labels):
    found = parse_labels(labels).labels
    assert parse_labels(repr(list(found))).labels == found == tuple(labels)


@given(st.text(max_size=120))
def test_labels_stand_in_the_text(text):
    squeezed = "".join(c for c in normalise(html.unescape(text)) if c.isalnum())
    for label in parse_labels(text).labels:
        assert "".join(c for c in label if c.isalnum()) in squeezed or not squeezed


def test_an_answer_that_repeats_itself_is_read():
    """Models get into loops; trying every way to split would take 2 ** 400 steps."""
    assert parse_labels("高兴和" * 400).labels == ("高兴", "高兴和")
    assert parse_labels("高兴和悲伤与" * 400 + "失望").labels == ("高兴", "悲伤", "失望")


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
