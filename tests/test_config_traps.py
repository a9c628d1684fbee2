"""What published configurations say wrongly or not at all, and our code must not believe."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib import nano
from emolib.engines import Request, answer_all, open_engine
from emolib.engines.swift_repairs import has_head
from emolib.engines.swift_setup import import_swift
from emolib.models.internvl.preflight import HfCounter
from emolib.params import Decoding, ModelParams
from tests.tiny_models import BUILDERS, encoded_length
from tests.tiny_omni import qwen3_omni

IMAGE = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), dtype=np.uint8)
GREEDY = Decoding(max_new_tokens=6)


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """InternVL3-hf as published: no word on tied embeddings, ``crop_to_patches`` false."""
    folder = BUILDERS["internvl3"](tmp_path_factory.mktemp("traps") / "internvl3")
    edit(folder / "config.json", lambda c: (c.pop("tie_word_embeddings"), c["text_config"]
         .pop("tie_word_embeddings", None)))  # fmt: skip
    edit(
        folder / "processor_config.json",
        lambda c: c["image_processor"].update(crop_to_patches=False, max_patches=12),
    )
    return folder


def edit(file: Path, change: Any) -> None:
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def params(folder: Path, **changes: Any) -> ModelParams:
    base = ModelParams(model=str(folder), device="cpu", decoding=GREEDY)
    return base.model_copy(update=changes)


def test_internvl_is_untied_though_its_configuration_is_silent(internvl: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import InternVLConfig

    assert InternVLConfig().tie_word_embeddings, "the default is right now: the repair may go"
    assert has_head(internvl)
    assert not has_head(nano.folder("nano:internvl")), "tied, and says so"
    stored = load_file(internvl / "model.safetensors")
    [head] = [name for name in stored if name.endswith("lm_head.weight")]
    with open_engine(params(internvl), name="x") as engine:
        model: Any = engine._engine.model  # type: ignore[attr-defined]
        assert model.config.tie_word_embeddings is False
        assert torch.equal(model.get_output_embeddings().weight, stored[head])
        assert not torch.equal(model.get_input_embeddings().weight, stored[head])


def test_internvl_tiles_are_counted_as_they_are_cut(internvl: Path) -> None:
    """``crop_to_patches: false`` stands in the folder and is followed by nobody."""
    from PIL import Image
    from transformers import AutoProcessor

    counter = HfCounter(internvl)
    assert counter.images.tiles([(1600, 900)]) == [9]
    processor = AutoProcessor.from_pretrained(internvl)
    made = processor(images=[Image.fromarray(IMAGE)], text="<IMG_CONTEXT>", return_tensors="np")
    token = processor.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert (made["input_ids"] == token).sum() == counter.images.image_tokens([(1600, 900)])
    with open_engine(params(internvl), name="x") as engine:
        counted = counter.other([{"role": "user", "content": "Who?"}], 1)
        counted += counter.images.image_tokens([(1600, 900)])
        assert encoded_length(engine, Request("1", "Who?", (IMAGE,))) == counted


def test_a_token_outside_the_vocabulary_is_never_asked(internvl: Path, tmp_path: Path) -> None:
    """``<video>`` of InternVL3-hf has the id 151,674, one more than there are embeddings."""
    from transformers import AutoTokenizer

    folder = tmp_path / "video"
    shutil.copytree(internvl, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = folder / name
        file.write_text(file.read_text().replace("<video>", "<was video>"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<video>"]})
    assert tokenizer.convert_tokens_to_ids("<video>") >= rows
    tokenizer.save_pretrained(folder)
    with open_engine(params(folder), name="x") as engine:
        asked = Request("1", "She films a <video> of <video>.", (IMAGE[:90, :160],))
        [reply] = answer_all(engine, [asked])
    assert reply.error is None


@pytest.mark.parametrize("named", [None, 0])
def test_an_answer_ends_where_the_tokenizer_says(named: int | None, tmp_path: Path) -> None:
    """Qwen3-Omni's generation_config names no end, InternVL3's original another one."""
    folder = tmp_path / "nano"
    shutil.copytree(nano.folder("nano:internvl"), folder)
    asked = [Request("1", "What does the face show?", (IMAGE[:90, :160],))]
    decoding = Decoding(max_new_tokens=200)
    with open_engine(params(folder, decoding=decoding), name="x") as engine:
        [plain] = answer_all(engine, asked)
    edit(folder / "generation_config.json", lambda c: c.update(eos_token_id=named))
    with open_engine(params(folder, decoding=decoding), name="x") as engine:
        [other] = answer_all(engine, asked)
    assert plain.finish_reason == other.finish_reason == "stop"
    assert (other.text, other.error) == (plain.text, None)
    # the end mark is the last token allowed
    exact = decoding.model_copy(update={"max_new_tokens": plain.new_tokens})
    with open_engine(params(folder, decoding=exact), name="x") as engine:
        [last] = answer_all(engine, asked)
    assert (last.text, last.finish_reason) == (plain.text, "stop")


def test_qwen3_omni_has_an_end_without_naming_one(tmp_path: Path) -> None:
    folder = qwen3_omni(tmp_path / "omni")
    published = {"talker_max_new_tokens": 4096, "talker_temperature": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(published))
    with open_engine(params(folder), name="x") as engine:
        opened: Any = engine
        end = opened._engine.tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert opened._end_ids == {end}
        [reply] = answer_all(engine, [Request("1", "Hello.")])
    assert reply.error is None


def test_pins_of_ms_swift_that_contradict_transformers_only_warn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Qwen2-Audio works above its pin (see swift_repairs), so its warning is dropped; others stay.

    CogVLM and Baichuan are not run in this process: their folders want remote code.
    """
    import_swift()
    from swift.model import MODEL_MAPPING

    logger = logging.getLogger("swift")
    logger.addHandler(caplog.handler)
    try:
        for name in ("qwen2_audio", "cogvlm", "baichuan"):
            MODEL_MAPPING[name].check_requires()
    finally:
        logger.removeHandler(caplog.handler)
    assert any("4.49" in pin for pin in MODEL_MAPPING["qwen2_audio"].requires)
    said = [record.getMessage() for record in caplog.records]
    assert not any("4.49" in text for text in said)
    assert any("transformers<4.42" in text for text in said)
    assert any("transformers<4.34" in text for text in said)
