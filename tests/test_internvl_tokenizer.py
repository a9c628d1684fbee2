"""The fast tokenizer against sentencepiece itself."""

from __future__ import annotations

import io
import json

import pytest
import sentencepiece
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emolib.errors import DataError
from emolib.models.internvl import tokenizer
from emolib.rehearsal.internvl_files import PIECES, sentencepiece_model, write_tokenizer
from tests.shared import shared

PARTS = st.sampled_from(
    [" ", "  ", "    ", "\n", "\t", "assistant", "InternLM", "表情", "没事", "高", "，", "7", "42",
     "😀", "é", "\u3000", "\u200b", "\x00", "<", "|im_start|>", "▁", "[UNUSED_TOKEN_146]", "a", "."]
)  # fmt: skip
TEXTS = st.lists(PARTS | st.text(max_size=3), max_size=14).map("".join)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "dummy-prefix"])
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, request.param)
    reference = sentencepiece.SentencePieceProcessor()
    reference.LoadFromSerializedProto(sentencepiece_model(request.param))
    return tokenizer.build(folder), reference


def test_the_reference_has_whitespace_pieces_and_bytes(both):
    """Else the comparison below would show little."""
    _, reference = both
    pieces = [reference.id_to_piece(i) for i in range(PIECES)]
    assert "▁▁" in pieces
    assert "<0xE4>" in pieces
    assert any(len(p) > 5 for p in pieces)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
def test_ids_equal_sentencepiece(both, text):
    fast, reference = both
    assume(not any(mark in text for mark in fast.all_special_tokens))
    assert fast(text, add_special_tokens=False)["input_ids"] == reference.encode(text)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_decoding_gives_the_text_back(both, text):
    fast, reference = both
    ids = reference.encode(text)
    assert fast.decode(ids) == reference.decode(ids)


def test_special_tokens_keep_their_ids_and_bos_comes_first(both):
    fast, _ = both
    ids = fast("<|im_start|>user\nhi<|im_end|><img><IMG_CONTEXT></img>")["input_ids"]
    assert ids[:2] == [1, PIECES - 1]
    assert ids[-4:] == [PIECES - 2, PIECES, PIECES + 2, PIECES + 1]
    assert (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id) == (1, 2, 2)


@pytest.mark.parametrize("kind", [5, 4], ids=["unused", "user-defined"])
def test_role_marks_cannot_be_spelt_by_their_old_names(kind, tmp_path):
    """InternLM2's first prompts wrote ``[UNUSED_TOKEN_146]`` for ``<|im_start|>``."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    write_tokenizer(tmp_path)
    model = proto.ModelProto()
    model.ParseFromString(sentencepiece_model())
    for piece in model.pieces[-6:]:
        piece.type = kind
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    fast = tokenizer.build(tmp_path)
    ids = fast("[UNUSED_TOKEN_146][UNUSED_TOKEN_145]", add_special_tokens=False)["input_ids"]
    assert max(ids) < PIECES - 6


def test_unused_pieces_leave_no_hole_for_later_tokens(tmp_path):
    write_tokenizer(tmp_path, pieces=PIECES + 50)
    fast = tokenizer.build(tmp_path)
    assert fast.convert_tokens_to_ids("<img>") == PIECES + 50
    assert len(fast) == PIECES + 59
    spelt = fast("[FILLER_3][FILLER_40]", add_special_tokens=False)["input_ids"]
    assert max(spelt) < PIECES - 6


def test_no_token_lies_beyond_the_vocabulary(both):
    """The native processor's own ``<video>`` token would be outside the embedding."""
    fast, _ = both
    assert len(fast) == max(fast.get_vocab().values()) + 1 == PIECES + 9
    assert fast.video_token_id < len(fast)


def test_saved_and_loaded_it_is_the_same(both, tmp_path):
    from transformers import AutoTokenizer

    fast, _ = both
    fast.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\n  请描述 😀 the image <img>"
    assert again(text)["input_ids"] == fast(text)["input_ids"]
    assert again.context_image_token == "<IMG_CONTEXT>"
    assert again.padding_side == "left"
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == (
        "user\n  请描述 😀 the image "
    )
    assert {"<|im_start|>", "<|im_end|>", "<img>", "<IMG_CONTEXT>"} <= set(again.all_special_tokens)


def test_added_tokens_json_alone_is_enough(tmp_path):
    write_tokenizer(tmp_path)
    fast = tokenizer.build(tmp_path)
    rows = json.loads((tmp_path / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    added = {row["content"]: int(number) for number, row in rows.items()}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    (tmp_path / "tokenizer_config.json").unlink()
    assert tokenizer.build(tmp_path).get_vocab() == fast.get_vocab()


def test_folders_of_other_models_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no tokenizer\.model"):
        tokenizer.build(tmp_path)
    write_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"][str(PIECES + 8)]
    config["added_tokens_decoder"][str(PIECES + 9)] = {"content": "</box>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="do not follow"):
        tokenizer.build(tmp_path)
    unigram = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words to learn from"] * 9), model_writer=unigram,
        vocab_size=18, minloglevel=2, num_threads=1,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(unigram.getvalue())
    with pytest.raises(DataError, match="BPE"):
        tokenizer.build(tmp_path)


def test_reference_samples():
    """Ids of the published slow tokenizer's code on strings of every kind."""
    golden = shared("golden/internvl_v15/golden.json")
    fast = tokenizer.build(golden.parent / "checkpoint")
    for text, ids in json.loads(golden.read_text())["tokenizer_samples"]:
        assert fast(text)["input_ids"] == ids
