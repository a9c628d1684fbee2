"""Chat formats and image layout, without any model."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.errors import DataError
from emolib.models.internvl import prompting
from emolib.models.internvl.prompting import BREAK, DIALECTS, broken_marks, dialect_of, lay_out
from emolib.rehearsal.internvl_files import BEYOND, SPECIAL

MARKS = (
    *SPECIAL, *BEYOND, "<|im_start|>", "<s>", "</s>", "<unk>", "<image>", "<video>", "<audio>",
    "<bbox>", "<ref-object>", "<cot-process>", "<start-image>", "{{SYSTEM}}", "{{QUERY}}",
    "{{ROUND0}}", "{{ROUND1}}", "{{RESPONSE}}",
)  # fmt: skip
TEXTS = st.lists(
    st.sampled_from(MARKS) | st.text(max_size=4) | st.sampled_from(["<", "{", "im_end|>"]),
    max_size=8,
).map("".join)


@given(text=TEXTS)
def test_broken_text_spells_no_mark_and_keeps_every_letter(text):
    broken = broken_marks(text)
    assert not [mark for mark in MARKS if mark in broken]
    assert broken.replace(BREAK, "") == text.replace(BREAK, "")


@given(text=TEXTS, images=st.integers(0, 4), layout=st.sampled_from(["joint", "separate"]))
def test_images_first_and_any_words_behind(text, images, layout):
    """What an engine sends: as many marks as images, then words that may spell more of them."""
    text = text.replace("\n", " ").lstrip()
    made, taken = lay_out("<image>" * images + text, images, layout)
    assert taken == images == made.count("<image>")
    blocks = min(images, 1) if layout == "joint" else images
    assert made.count("<img>") == made.count("</img>") == blocks
    assert made.replace(BREAK, "").endswith(text.replace(BREAK, ""))


@pytest.mark.parametrize(
    ("text", "layout", "expected"),
    [
        ("<image>Hi", "joint", "<img>1</img>\nHi"),
        ("<image>\nHi", "joint", "<img>1</img>\nHi"),
        ("<image><image>Hi", "joint", "<img>11</img>\nHi"),
        ("<image>\n<image>\nHi", "joint", "<img>11</img>\nHi"),
        ("<image><image>Hi", "separate", "<img>1</img>\n<img>1</img>\nHi"),
        ("<image><image>\nHi", "separate", "<img>1</img><img>1</img>\nHi"),
        ("<image>\n<image>\nHi", "separate", "<img>1</img>\n<img>1</img>\nHi"),
        ("A: <image>\nB: <image>\nHi", "joint", "A: <img>1</img>\nB: <img>1</img>\nHi"),
        ("See <image>and <image>, both", "joint", "See <img>1</img>\nand <img>1</img>\n, both"),
    ],
)
def test_layout(text, layout, expected):
    assert lay_out(text, text.count("<image>"), layout)[0].replace("<image>", "1") == expected


def test_more_marks_than_images_is_an_error_unless_the_first_are_enough():
    with pytest.raises(DataError, match="3 <image> marks in a message, but 2 images"):
        lay_out("a <image> b <image> c <image>", 2, "joint")
    made, taken = lay_out("<image>\n<image>\nhe said <image>", 2, "joint")
    assert (taken, made.replace(BREAK, "")) == (2, "<img><image><image></img>\nhe said <image>")


def test_chat_format_of_a_published_folder(tmp_path):
    def found(**config):
        return dialect_of(config, tmp_path)

    assert found() == found(template="internlm2-chat") == DIALECTS["v1.5"]
    assert found(template="internvl2_5") == DIALECTS["v2.5"]
    assert found(system_message=prompting.SYSTEM_V2) == DIALECTS["v2"]
    own = found(template="internlm2-chat", system_message="You are kind.")
    assert (own.system, own.end, own.layout) == ("You are kind.", "<|im_end|>", "joint")
    assert dialect_of({"template": "internvl2_5"}, tmp_path, "v2") == DIALECTS["v2"]
    with pytest.raises(DataError, match="Hermes-2"):
        found(template="Hermes-2")
    with pytest.raises(DataError, match="choose from"):
        dialect_of({}, tmp_path, "v3")


def test_the_system_message_is_read_from_conversation_py_without_running_it(tmp_path):
    (tmp_path / "conversation.py").write_text(
        "raise SystemExit('this must not run')\n"
        "register(Conversation(name='Hermes-2', system_message='other', sep='<|im_end|>'))\n"
        f"register(Conversation(name='internlm2-chat', system_message={prompting.SYSTEM_V2!r}))\n"
    )
    assert dialect_of({"template": "internlm2-chat"}, tmp_path) == DIALECTS["v2"]
    assert dialect_of({"_name_or_path": "OpenGVLab/InternVL-Chat-V1-5"}, tmp_path).name == "v1.5"
    (tmp_path / "conversation.py").write_text("def broken(")
    assert dialect_of({"template": "internlm2-chat"}, tmp_path) == DIALECTS["v1.5"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("InternVL-Chat-V1-5", "v1.5"),
        ("models--OpenGVLab--InternVL-Chat-V1-5/snapshots/abc", "v1.5"),
        ("Mini-InternVL-Chat-2B-V1-5", "v1.5"),
        ("InternVL2-26B", "v2"),
        ("downloads/weights", "v1.5"),
    ],
)
def test_the_folders_name_tells_v1_5_from_v2(folder, name, tmp_path):
    (tmp_path / folder).mkdir(parents=True)
    assert dialect_of({"template": "internlm2-chat"}, tmp_path / folder).name == name


def test_chat_formats_survive_a_configuration_file():
    from types import SimpleNamespace

    for dialect in DIALECTS.values():
        kept = json.loads(json.dumps(prompting.to_config(dialect)))
        assert prompting.from_config(SimpleNamespace(chat=kept)) == dialect
    with pytest.raises(DataError, match="emolib convert internvl"):
        prompting.from_config(SimpleNamespace())
