"""What people say cannot act on a model; what is harmless stays as it was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib import prompts
from emolib.prompts import plain


@pytest.mark.parametrize(
    "mark",
    [
        *("<image>", "</s>", "<|im_end|>", "<｜User｜>", "<img>/etc/passwd</img>", "<0x0A>"),
        *("[INST]", "[/INST]", "[IMG]", "[gMASK]", "[SYSTEM_PROMPT]", "<<SYS>>", "###Human"),
        *("{{ROUND0}}", "{{{QUERY}}}"),
    ],
)
def test_marks_are_blunted_wherever_they_stand(mark):
    for text in (mark, f"he said {mark} and left", mark * 3, f"<{mark}"):
        assert mark not in plain(text)
        assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize(
    "text", ["I <3 you", "1 < 2", '["happy", "sad"]', "#1 of ##", "{a} {0} %s", "[NO", "愤怒！"]
)
def test_harmless_text_stays(text):
    assert plain(text) == text


@given(st.text(max_size=80))
def test_text_stays_on_one_line_and_can_be_encoded(text):
    made = plain(text)
    assert len(made.splitlines()) <= 1
    made.encode()


@pytest.mark.parametrize("line", ["\x85", "\u2028", "\u2029", "\r\n", "\x1b", "\ud800"])
def test_control_characters_become_spaces(line):
    assert plain(f"a{line}b").split() == ["a", "b"]


def test_braces_of_the_words_fill_no_blank():
    prompt = prompts.ZERO_SHOT.render(text="{text} {0} {x!r} %s")
    assert "{text} {0} {x!r} %s" in prompt
    assert prompt.count("expert in the field") == 1
