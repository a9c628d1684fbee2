"""``engine: vllm`` over ms-swift's own VllmEngine; only vLLM itself is a stand-in."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib.engines import Engine, Request, answer_all, open_engine
from emolib.engines.swift_setup import import_swift
from emolib.errors import EngineError, MissingDependencyError
from emolib.params import Decoding, ModelParams
from tests import fake_vllm


def test_without_vllm_the_message_says_what_to_do() -> None:
    with pytest.raises(MissingDependencyError, match=r"engine: vllm needs vLLM .*engine: server"):
        open_engine(ModelParams(engine="vllm", model="tiny:internvl"), name="x")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def connect(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    import_swift()  # before there is a vLLM: its other modules look for it when imported
    for name, module in fake_vllm.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    version = importlib.metadata.version
    told = {"vllm": fake_vllm.VERSION}
    monkeypatch.setattr(importlib.metadata, "version", lambda n: told.get(n) or version(n))
    monkeypatch.setattr(fake_vllm.AsyncLLM, "made", [])
    opened = []

    def _connect(adapters: tuple[Path, ...] = (), **changes: Any) -> Any:
        known = {"decoding": Decoding(max_new_tokens=9), "concurrency": 3}
        params = ModelParams(engine="vllm", model="tiny:internvl", **(known | changes))
        opened.append(open_engine(params, name="vllm", adapters=adapters, cache=cache))
        return opened[-1]

    yield _connect
    for engine in opened:
        engine.close()
    # ms-swift's modules hold on to the stand-in
    for name in ("swift.infer_engine.vllm_engine", "swift.infer_engine.grpo_vllm_engine"):
        sys.modules.pop(name, None)
    if "swift.infer_engine" in sys.modules:
        vars(sys.modules["swift.infer_engine"]).pop("VllmEngine", None)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_requests_reach_vllm_as_the_in_process_engine_would_tokenise_them(
    connect: Callable[..., Any], cache: Path
) -> None:
    engine = connect(max_length=500, max_tiles=4, gpu_memory=0.5, gpus=2)
    assert isinstance(engine, Engine)
    [made] = fake_vllm.AsyncLLM.made
    assert (made.args.max_model_len, made.args.max_num_seqs) == (509, 3)
    assert (made.args.gpu_memory_utilization, made.args.tensor_parallel_size) == (0.5, 2)
    assert made.args.mm_processor_kwargs == {"max_patches": 4}
    text = "Describe <image> and <|im_end|> of this {{ROUND0}}."
    images = (picture(0), picture(1))
    [reply] = answer_all(engine, [Request("a", text, images, system="Be <image> brief.")])
    assert (reply.text, reply.error, reply.finish_reason) == ("0.85", None, "stop")
    [asked] = made.asked
    tokenizer = made._tokenizer
    ids = asked.prompt["prompt_token_ids"]
    assert tokenizer.decode(ids).count("<IMG_CONTEXT>") == 2, "one place an image"
    assert "Describe <image> and <|im_end|> of this {{ROUND0}}." in tokenizer.decode(ids)
    assert len(ids) + 2 * 6 == reply.prompt_tokens, "as many as vLLM made of the images"
    sent = asked.prompt["multi_modal_data"]["image"]
    assert all(np.array_equal(np.asarray(s), i) for s, i in zip(sent, images, strict=True))
    assert (asked.sampling.temperature, asked.sampling.max_tokens) == (0.0, 9)
    assert (asked.sampling.top_k, asked.sampling.seed) == (-1, None)
    assert engine._engine.template._texts == {}, "nothing of a request is kept"
    local = ModelParams(model="tiny:internvl", decoding=Decoding(max_new_tokens=1))
    with open_engine(local, name="local", cache=cache) as other:
        plain = other._engine.template
        _, prepared = other._prepare(Request("a", text, system="Be <image> brief."))
        here = plain.encode(prepared, return_template_inputs=True)["input_ids"]
        identity = dict(other.identity)
    without = connect()
    answer_all(without, [Request("a", text, system="Be <image> brief.")])
    assert fake_vllm.AsyncLLM.made[-1].asked[0].prompt["prompt_token_ids"] == here
    changed = {"engine", "decoding"}
    assert without.identity["engine"] == "vllm"
    assert {k: v for k, v in without.identity.items() if k not in changed} == {
        k: v for k, v in identity.items() if k not in changed
    }
    assert without.software["vllm"] == "0.33.0"


def test_concurrency_order_errors_and_probabilities(connect: Callable[..., Any]) -> None:
    engine = connect(decoding=Decoding(max_new_tokens=9, temperature=0.5, seed=1, stop=("8",)))
    [made] = fake_vllm.AsyncLLM.made

    def reply(prompt: dict[str, Any]) -> Any:
        text = made._tokenizer.decode(prompt["prompt_token_ids"])
        return ValueError("too long for vLLM") if "q4" in text else "0.85"

    made.reply = reply
    pulled = []

    def source() -> Iterator[Request]:
        for i in range(12):
            pulled.append(i)
            yield Request(str(i), f"q{i}.", alternatives=2 if i == 5 else 0)
        yield Request("bad", "x", (np.zeros((4, 4), np.uint8),))

    stream = engine.stream(source())
    first = next(stream)
    assert len(pulled) <= 3 + 2
    replies = {reply.id: reply for reply in (first, *stream)}
    assert len(replies) == 13
    assert 1 < made.most <= 3
    assert replies["4"].error == "ValueError: too long for vLLM"
    assert "uint8" in replies["bad"].error
    assert replies["0"].text == "0.", "cut before the stop string"
    assert replies["0"].tokens == ()
    assert [len(token.top) for token in replies["5"].tokens] == [2] * len(replies["5"].tokens)
    seeds = {asked.sampling.seed for asked in made.asked}
    assert len(seeds) == 12, "each request draws by its own content"


def test_a_prompt_longer_than_max_length_is_its_own_error(connect: Callable[..., Any]) -> None:
    engine = connect(max_length=60)
    fake_vllm.AsyncLLM.made[0].image_tokens = 64
    fits, long = answer_all(engine, [Request("a", "x"), Request("b", "x", (picture(0),))])
    assert fits.error is None
    assert "prompt too long" in long.error
    assert "max_length 60" in long.error


def test_a_dead_vllm_stops_the_run(connect: Callable[..., Any]) -> None:
    engine = connect()
    fake_vllm.AsyncLLM.made[0].reply = fake_vllm.EngineDeadError("out of memory")
    with pytest.raises(EngineError, match=r"vLLM's engine died \(out of memory\).*is kept"):
        list(engine.stream([Request(str(i), "x") for i in range(5)]))


def test_one_lora_with_room_for_its_rank(connect: Callable[..., Any], tmp_path: Path) -> None:
    for name, rank in (("a", 24), ("b", 8)):
        (tmp_path / name).mkdir()
        config = {"r": rank, "target_modules": ["q_proj"]}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"weights")
    engine = connect(adapters=(tmp_path / "a",))
    [made] = fake_vllm.AsyncLLM.made
    assert (made.args.enable_lora, made.args.max_lora_rank) == (True, 32)
    answer_all(engine, [Request("1", "x")])
    assert made.asked[0].lora.lora_path == str(tmp_path / "a")
    with pytest.raises(EngineError, match="one LoRA at a time, not 2"):
        connect(adapters=(tmp_path / "a", tmp_path / "b"))


@pytest.mark.parametrize("option", [{"device": "cuda:1"}, {"attention": "sdpa"}])
def test_options_that_vllm_does_not_read_are_refused(
    connect: Callable[..., Any], option: dict[str, str]
) -> None:
    with pytest.raises(EngineError, match="is not read by engine: vllm"):
        connect(**option)
