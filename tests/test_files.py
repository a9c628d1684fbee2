"""Files are whole or absent, and what cannot be read is named."""

from __future__ import annotations

import os
from argparse import Namespace

import pytest

from emolib.errors import DataError
from emolib.files import load_tensors, read_json, read_jsonl, write_json, write_jsonl


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


class Evil:
    def __reduce__(self):
        return (os.system, ("touch ran",))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize(
    ("value", "wanted"), [(Evil(), "posix.system"), (Namespace(a=1), "argparse.Namespace")]
)
def test_a_refused_pickle_names_the_file_the_class_and_a_way_out(
    tmp_path, monkeypatch, value, wanted, mmap, zipped
):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.zeros(2), "x": value}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError) as caught:
        load_tensors(path, mmap=mmap)
    told = str(caught.value)
    assert told.startswith(f"{path}: refused: the pickle in it wants to run {wanted}, ")
    assert ".safetensors" in told
    assert told.isprintable(), "no escape codes, one line"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_loaded_whatever_the_format(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    assert load_tensors(path, mmap=True)["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x80\x04\x95\x00", b"PK\x03\x04"])
def test_what_torch_cannot_read_is_named_in_one_line(tmp_path, content):
    pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_tensors(path, mmap=True)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
