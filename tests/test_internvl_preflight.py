"""Counts from sizes and words equal the length of what ms-swift encodes."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from emolib.engines.swift_setup import import_swift
from emolib.errors import DataError
from emolib.models.internvl import prompting
from emolib.models.internvl.budget import TokenBudgetError
from emolib.models.internvl.convert import convert
from emolib.models.internvl.preflight import Counter, preflight_rows
from emolib.rehearsal.internvl_files import write_source
from tests.test_internvl_prompting import TEXTS

WORDS = TEXTS.map(lambda text: text + "a")  # an empty answer cannot be trained on
SIZES = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), max_size=3)


@pytest.fixture(scope="module", params=list(prompting.DIALECTS))
def model(request, tmp_path_factory):
    """(folder, ms-swift's template in training mode) for every chat format."""
    import_swift()
    from swift.model import get_model_processor
    from swift.template import get_template

    home = tmp_path_factory.mktemp("preflight")
    convert(write_source(home / "source"), home / "out", request.param)
    processor = get_model_processor(str(home / "out"), load_model=False, use_hf=True)[1]
    template = get_template(processor)
    template.set_mode("train")
    return home / "out", template


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(WORDS, min_size=2, max_size=4), system=st.none() | WORDS, sizes=SIZES)
def test_counts_are_exact(model, texts, system, sizes):
    folder, template = model
    texts = texts[: len(texts) // 2 * 2]
    texts[0] = "<image>" * len(sizes) + "x" + texts[0]
    messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]
    for message in messages[2::2]:
        message["content"] = message["content"].replace("<image>", "")
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    images = [Image.new("RGB", size) for size in sizes]
    counter = Counter(folder)
    for top in (1, 4, 12):
        given_ = {"messages": messages, "images": images, "chat_template_kwargs": {"max_num": top}}
        want = len(template.encode(given_)["input_ids"])
        got = counter.other(messages, len(sizes)) + counter.images.image_tokens(sizes, top)
        assert got == want


@pytest.fixture
def rows(tmp_path):
    Image.new("RGB", (300, 100)).save(tmp_path / "wide.png")
    row = {
        "messages": [
            {"role": "user", "content": "<image><image>Who?"},
            {"role": "assistant", "content": "She."},
        ],
        "images": [str(tmp_path / "wide.png")] * 2,
    }
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    short = {"messages": talk}
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(row)}\n{json.dumps(short)}\n")
    return file


def test_a_training_file(model, rows):
    folder, _ = model
    most, table = preflight_rows(folder, rows, 10_000)
    assert most == 12
    assert [row["name"] for row in table] == ["line 1", "line 2"]
    tokens = table[0]["tokens"]
    less, table = preflight_rows(folder, rows, tokens - 1)
    assert less < 12
    assert table[0]["tokens"] < tokens
    with pytest.raises(TokenBudgetError, match=r"^line 1: "):
        preflight_rows(folder, rows, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["no.png"]}, "no.png: not an image"),
        ({"images": ["wide.png"] * 3}, "1 of 3 images have no <image> mark"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "in turn"),
        ({"messages": [{"role": "user"}]}, "content"),
    ],
)
def test_rows_that_cannot_be_read_are_named(model, rows, change, message, monkeypatch):
    folder, _ = model
    monkeypatch.chdir(rows.parent)
    first, *_ = rows.read_text().splitlines()
    rows.write_text(json.dumps(json.loads(first) | change) + "\n")
    with pytest.raises(DataError, match=f"line 1: .*{message}"):
        preflight_rows(folder, rows, 1000)
