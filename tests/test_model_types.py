"""Folders that ms-swift cannot match to one model type are told which parameters to set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from emolib.engines import Request, answer_all, open_engine
from emolib.engines.swift_setup import ModelFolder, check_options, check_type, import_swift
from emolib.engines.tiny_parts import CHATML, save_random, train_tokenizer
from emolib.errors import EngineError
from emolib.params import Decoding, ModelParams


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Llama of random weights, under a name of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("types") / "my-model"
    special = ["<s>", "</s>", "<unk>"]
    tokenizer = train_tokenizer(
        special, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=CHATML
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    folder.mkdir()
    save_random(LlamaForCausalLM, config, tokenizer, tokenizer, folder, 0)
    return folder


def with_config(folder: Path, source: Path, **changes: Any) -> Path:
    """A copy of a folder whose config says something else."""
    shutil.copytree(source, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def params(folder: Path, **changes: Any) -> ModelParams:
    base = ModelParams(model=str(folder), device="cpu", decoding=Decoding(max_new_tokens=3))
    return base.model_copy(update=changes)


def refusal(model: ModelParams) -> str:
    with pytest.raises(EngineError) as caught:
        open_engine(model, name="x")
    return str(caught.value)


def test_a_plain_llama_is_told_its_types_and_templates(llama: Path) -> None:
    said = refusal(params(llama))
    assert said.startswith(f"{llama}: ms-swift cannot tell which of its models this is")
    assert "LlamaForCausalLM" in said
    assert "set model_type and template in the model's parameters" in said
    assert "model_type: llama, template: llama | " in said
    assert " | llama3 | " in said
    assert "model_type: yi, template: chatml | " in said
    half = refusal(params(llama, model_type="llama"))
    assert "model_type: llama, template: llama | " in half
    assert "yi" not in half
    with open_engine(params(llama, model_type="llama", template="llama3"), name="x") as engine:
        [reply] = answer_all(engine, [Request("1", "Hello.")])
    assert reply.error is None
    assert engine.identity["template"] == "llama3"


def test_a_published_name_is_enough(llama: Path, tmp_path: Path) -> None:
    folder = with_config(tmp_path / "Llama-2-7b-chat-hf", llama)
    with open_engine(params(folder), name="x") as engine:
        assert engine.identity["template"] == "llama"


def test_an_unknown_architecture_is_never_asked_without_a_chat_format(
    llama: Path, tmp_path: Path
) -> None:
    """ms-swift itself would load it and leave the chat format out."""
    unknown = with_config(tmp_path / "unknown", llama, architectures=["LlamaForCausalLMs"])
    said = refusal(params(unknown))
    assert "ms-swift knows no model of this kind (LlamaForCausalLMs)" in said
    assert "(LlamaForCausalLM)" in said
    assert "engine: server" in said
    none = with_config(tmp_path / "none", llama, architectures=None)
    assert "no architecture in config.json" in refusal(params(none))


def test_wrong_names_are_told_those_like_them(llama: Path) -> None:
    said = refusal(params(llama, model_type="lama"))
    assert said.startswith("model_type: ms-swift has no 'lama'; names like it: ")
    assert "llama" in said
    said = refusal(params(llama, model_type="llama", template="llama33"))
    assert said.startswith("template: ms-swift has no 'llama33'; names like it: ")


def test_trainings_and_servers_are_told_the_same(llama: Path) -> None:
    import_swift()
    with pytest.raises(EngineError, match="set model_type and template"):
        check_options(["--model", str(llama), "--torch_dtype", "float32"])
    check_options(["--model", str(llama), "--model_type", "llama", "--template", "llama"])


@pytest.mark.parametrize(
    ("architecture", "model_type", "template"),
    [
        ("Qwen3VLForConditionalGeneration", "", ""),
        ("Qwen2_5_VLForConditionalGeneration", "", ""),
        ("Qwen2ForCausalLM", "qwen2", "qwen2_5"),
    ],
)
def test_what_find_model_settles_is_settled(
    architecture: str, model_type: str, template: str, llama: Path, tmp_path: Path
) -> None:
    from emolib.engines.swift_setup import find_model

    folder = with_config(tmp_path / "renamed", llama, architectures=[architecture])
    import_swift()
    check_type(find_model(params(folder, model_type=model_type, template=template)))
    with pytest.raises(EngineError, match="set model_type"):
        check_type(ModelFolder(folder, "", "float32"))
