"""Files are whole or absent, and what cannot be read is named."""

from __future__ import annotations

import pytest

from emolib.errors import DataError
from emolib.files import read_json, read_jsonl, write_json, write_jsonl


def test_half_a_character_does_not_stop_a_result_file(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "glad \ud83d"}])
    assert list(read_jsonl(path)) == [{"text": "glad ?"}]
    assert read_json(write_json(tmp_path / "a.json", {"t": "\udc00 愤怒"})) == {"t": "? 愤怒"}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ', "\x00"])
def test_what_is_not_json_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.json: cannot be read as JSON"):
        read_json(path)
    with pytest.raises(DataError, match=r"x\.json, line 1: not JSON"):
        list(read_jsonl(path))
