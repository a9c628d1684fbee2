"""Every recipe that runs in this process, on tiny checkpoints of its architecture.

Each input of a recipe must reach the model: one is changed, and the logits of the first
answered token change; what is no input of the recipe may change freely.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib.baselines import branches, chat
from emolib.baselines.run import run_systems
from emolib.datasets.clip import Clip
from emolib.engines import Engine, Request, answer_all, open_engine
from emolib.engines.serving import serve
from emolib.engines.tiny import build_tiny
from emolib.engines.tiny_audio import SECONDS
from emolib.ledger import Ledger
from emolib.models.affectgpt.engine import AffectGPTEngine
from emolib.params import Decoding, ModelParams, profiles
from emolib.params.baselines import Recipe
from tests import tiny_omni
from tests.media_files import tone, write_audio, write_video
from tests.tiny_models import BUILDERS

ROOT = Path(__file__).resolve().parents[1]
RECIPES = profiles.recipes(ROOT, "h200")
LOCAL = {
    name: recipe
    for name, recipe in RECIPES.recipes.items()
    if (model := recipe.answering(RECIPES.models)) and model.engine == "transformers"
}
TINY: dict[str, Callable[[Path], Path]] = {
    "internvl3_5_8b": BUILDERS["internvl3_5"],
    "qwen3_vl_8b": BUILDERS["qwen3_vl"],
    "qwen2_audio_7b": lambda folder: build_tiny("qwen2audio", folder),
    "qwen2_5_omni_7b": tiny_omni.qwen2_5_omni,
    "qwen3_omni_30b": tiny_omni.qwen3_omni,
    "video_llama": lambda folder: build_tiny("affectgpt", folder),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    folder = tmp_path_factory.mktemp("clip")
    video = write_video(folder / "clip.mp4", 30, audio=tone(1.2)[None])
    return Clip("clip", video, subtitle="Where have you been?", labels=("happy",))


@pytest.fixture(scope="module")
def changed(clip, tmp_path_factory) -> dict[str, Clip]:
    """The clip with one thing changed; picture and sound are taken apart for that."""
    folder = tmp_path_factory.mktemp("changed")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 19_200)).astype(np.float32)
    other = write_video(folder / "other.mp4", 30, size=(256, 96), fps=25)
    sound = write_audio(folder / "clip.wav", tone(1.2)[None])
    base = replace(clip, audio=sound)
    return {
        "base": base,
        "frames": replace(base, video=other),
        "audio": replace(base, audio=write_audio(folder / "noise.wav", noise)),
        "words": replace(base, subtitle="I hate you."),
    }


@pytest.fixture(scope="module", params=sorted(LOCAL))
def opened(request, tmp_path_factory) -> Iterator[tuple[str, Recipe, ModelParams, Engine]]:
    name = request.param
    folder = TINY[name](tmp_path_factory.mktemp("baseline") / name)
    small = {"model": str(folder), "device": "cpu", "dtype": "auto", "attention": ""}
    params = (
        RECIPES.recipes[name]
        .answering(RECIPES.models)
        .model_copy(update={**small, "max_tiles": 0, "decoding": Decoding(max_new_tokens=4)})
    )
    recipe = LOCAL[name].model_copy(update={"model": params, "use": "", "seconds": 6.0})
    is_affectgpt = recipe.interface == "affectgpt"
    engine = AffectGPTEngine(params, name) if is_affectgpt else open_engine(params, name=name)
    with engine:
        yield name, recipe, params, engine


def first_logits(recipe: Recipe, engine: Engine, clip: Clip, ledger: Path) -> np.ndarray:
    """Logits of the first answered token, caught on the model's way out."""
    caught: list[np.ndarray] = []
    model: Any = getattr(engine, "_model", None) or engine._engine.model
    [head] = [m for name, m in model.named_modules() if name.endswith("lm_head")]
    hook = head.register_forward_hook(
        lambda module, given, made: caught.append(made[0, -1].float().numpy())
    )
    with contextlib.closing(Ledger(ledger)) as opened:
        if recipe.interface == "affectgpt":
            [row] = branches.describe([clip], recipe, engine, opened)
        else:
            [row] = chat.describe([clip], recipe, engine, opened)
    hook.remove()
    assert row.error is None
    assert row.info["inputs"] == list(recipe.inputs)
    return caught[0]


def test_every_local_recipe_has_its_tiny_model():
    assert LOCAL.keys() == TINY.keys()


def test_every_input_reaches_the_model_and_nothing_else_does(opened, changed, tmp_path):
    _, recipe, _, engine = opened
    seen = {
        what: first_logits(recipe, engine, clip, tmp_path / f"{what}.jsonl")
        for what, clip in changed.items()
    }
    for what in ("frames", "audio", "words"):
        moved = np.abs(seen[what] - seen["base"]).max()
        assert (moved > 1e-3) == (what in recipe.inputs), (what, moved)


def test_a_recipe_runs_from_clips_to_labels(opened, clip, tmp_path, monkeypatch):
    """Through the same door as notebook 08, with a clip that lacks its sound beside it."""
    name, recipe, _, engine = opened
    again = contextlib.nullcontext(engine)  # the open model, not a second one
    monkeypatch.setattr("emolib.baselines.run.open_engine", lambda *given, **named: again)
    monkeypatch.setattr(
        "emolib.models.affectgpt.engine.AffectGPTEngine", lambda *given, **named: again
    )
    mute = Clip("mute", write_video(tmp_path / "mute.mp4", 12), subtitle=None)
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ran = run_systems([clip, mute], {name: recipe}, {}, ledger)
        twice = run_systems([clip, mute], {name: recipe}, {}, ledger)
    assert ran.absent == {}
    rows = ran.predictions[name]
    assert [row.system for row in rows] == [recipe.title] * 2
    assert rows[0].status == "ok"
    assert rows[0].description or rows[0].finish_reason == "stop"
    if "frames" in recipe.inputs:
        assert rows[1].status == "ok"
        assert rows[1].info["absent"] == [i for i in recipe.inputs if i != "frames"]
    else:
        assert "has none of" in rows[1].error
    assert twice.predictions[name] == rows


def test_batches_give_what_one_by_one_gives(opened):
    """Sounds and pictures of different sizes, so that the batch is padded."""
    name, recipe, _, engine = opened
    if "audio" not in recipe.inputs or recipe.interface == "affectgpt":
        return  # tests/test_newer_models.py, tests/test_sft.py
    rng = np.random.default_rng(1)

    def request(number: int) -> Request:
        images, audio = (), ()
        if "frames" in recipe.inputs:
            shape = (64, 96 - 16 * number, 3)
            images = tuple(rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(number))
        if "audio" in recipe.inputs and number:
            audio = (tone(0.5 + number, hertz=200.0 * number),)
        return Request(str(number), "Describe. " * (number + 1), images, audio)

    requests = [request(number) for number in (2, 0, 1)]
    together = answer_all(engine, requests)
    alone = [answer_all(engine, [one])[0] for one in requests]
    assert [r.error for r in together] == [None] * 3
    assert [r.text for r in together] == [r.text for r in alone], name
    assert [r.prompt_tokens for r in together] == [r.prompt_tokens for r in alone]


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Iterator[Any]:
    folder = build_tiny("qwen2audio", tmp_path_factory.mktemp("hearing") / "qwen2audio")
    params = ModelParams(
        model=str(folder), device="cpu", batch_size=3, decoding=Decoding(max_new_tokens=12)
    )
    with open_engine(params, name="hearing") as engine:
        yield engine


def test_qwen2_audio_answers_as_transformers_own_processor_makes_it(hearing):
    """ms-swift's template alone goes wrong from the second word on, see swift_repairs."""
    model, processor = hearing._engine.model, hearing._engine.processor
    requests = [
        Request(str(n), "What do you hear? " * n, audio=(tone(float(n), hertz=300.0 * n),))
        for n in (1, 2, 3)
    ]
    for request, reply in zip(requests, answer_all(hearing, requests), strict=True):
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            f"Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n{request.prompt}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        sound = [request.audio[0]]
        inputs = processor(text=text, audio=sound, sampling_rate=16_000, return_tensors="pt")
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        ids = out[0, inputs["input_ids"].shape[1] :]
        assert reply.text == processor.tokenizer.decode(ids, skip_special_tokens=True)
        assert reply.prompt_tokens == inputs["input_ids"].shape[1]


def test_a_sound_longer_than_the_model_hears_is_refused_not_cut(hearing):
    long, short = tone(SECONDS + 1.0), tone(1.0)
    replies = answer_all(
        hearing, [Request("l", "x", audio=(long,)), Request("s", "x", (), (short,))]
    )
    assert "lasts 7.0 s and the model hears 6 s" in replies[0].error
    assert replies[1].error is None


def test_two_sounds_are_two_sounds(hearing):
    one, other = tone(0.5), tone(0.7, hertz=900.0)
    both = [Request("1", "x", audio=(one, other)), Request("2", "x", audio=(other, one))]
    first, second = answer_all(hearing, both)
    assert first.error is None
    assert first.text != second.text


def test_a_served_omni_model_answers_as_the_one_here(tmp_path):
    """`swift deploy` with pictures and sound, sent the way the protocol defines."""
    folder = tiny_omni.qwen2_5_omni(tmp_path / "omni")
    model = ModelParams(model=str(folder), device="cpu", decoding=Decoding(max_new_tokens=8))
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    # 16-bit values, which travel unchanged
    sound = (np.round(tone(1.0) * 32767) / 32767).astype(np.float32)
    requests = [Request("1", "Both?", (picture,), (sound,)), Request("2", "Heard?", (), (sound,))]
    with open_engine(model, name="here") as engine:
        here = answer_all(engine, requests)
    with (
        serve(model, tmp_path / "serve.log") as served,
        open_engine(served, name="there") as engine,
    ):
        there = answer_all(engine, requests)
    assert [r.error for r in there] == [None, None]
    assert [r.text for r in there] == [r.text for r in here]
