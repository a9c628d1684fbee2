"""The nano AffectGPT: found by its name, as its card says, and trainable again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emolib import nano
from emolib.demo import loop
from emolib.demo.affectgpt import branches, fitting, language, make, texts, towers
from emolib.demo.affectgpt.sounds import STATES, Sounds, _speak, states
from emolib.demo.pictures import Pictures, World, clip_pictures
from emolib.engines.swift_setup import find_model
from emolib.errors import MissingModelError
from emolib.models.affectgpt import AffectGPTForConditionalGeneration, AffectGPTProcessor
from emolib.models.affectgpt.trained import check_trainable
from emolib.params import ModelParams

CLIPS = 8


@pytest.fixture(scope="module")
def fresh() -> tuple[Any, Any]:
    """An untrained model with a tokenizer of few texts."""
    torch.set_num_threads(1)
    return make.build(seed=0, texts=100)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    wanted = World(clips=CLIPS, frames=2)
    made = [clip_pictures(wanted, index) for index in range(CLIPS)]
    pixels, times, faces = (np.stack(parts) for parts in zip(*made, strict=True))
    return Pictures(wanted, pixels, times, faces, np.arange(CLIPS) % 4 == 3)


@pytest.fixture(scope="module")
def sounds() -> Sounds:
    wanted = World(clips=CLIPS)
    return Sounds(wanted, _speak(wanted, 4, range(CLIPS)), states(wanted))


def falls(losses: list[float], by: float) -> bool:
    first, last = loop.ends(losses)
    return last < first - by


def test_a_nano_model_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "config.json").write_text('{"dtype": "float32"}')
    (folder / nano.CARD).write_text('{"files": {"config.json": "other"}}')
    monkeypatch.setattr(nano, "ROOT", tmp_path)
    found = find_model(ModelParams(model="nano:some"))
    assert (found.path, found.dtype) == (folder, "float32")
    assert nano.changed(folder) == ["config.json"]
    with pytest.raises(MissingModelError, match=r"'none' is not known; choose from \['some'\]"):
        find_model(ModelParams(model="nano:none"))


def test_the_shipped_model_is_what_its_card_says() -> None:
    folder, card = nano.folder("affectgpt"), nano.card("affectgpt")
    assert nano.changed(folder) == []
    assert sum(f.stat().st_size for f in folder.iterdir()) < 6_200_000
    assert (card["data"]["domain"], card["data"]["split"]) == ("base", "train")
    assert card["command"].startswith("python -m emolib.demo.train affectgpt ")
    model = AffectGPTForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert len(model.freeze_towers()) == check_trainable(model)[0] == 116


def test_the_shipped_language_model_reads_words() -> None:
    folder = nano.folder("affectgpt")
    model = AffectGPTForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AffectGPTProcessor.from_pretrained(folder)
    prompt = processor.prompt("paper", video=False, audio=False, subtitle="Thank you, Anna.")
    batch = processor([prompt])
    out = model.generate(**batch, max_new_tokens=80, do_sample=False, **processor.stopping())
    [said] = processor.decode_answers(out, batch["input_ids"].shape[1])
    assert said.startswith('In the text, the subtitle reads: "')
    assert said.endswith(".")


def test_answers_tell_no_more_than_the_prompt_shows() -> None:
    for index in range(20):
        heard = texts.sample(index, (False, True, False))
        assert heard.video is None
        assert "In the video" not in heard.answer
        read = texts.sample(index, (False, False, True))
        assert (read.video, read.audio) == (None, None)
        assert "<AudioHere>" not in read.prompt


def test_the_language_model_learns(fresh: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = fresh
    loss = language.answer_loss(model, processor, 0, batch=2, seed=0)
    phase = loop.Phase("few", 20, rate=3e-3, warmup=0.1, muon=False)
    losses = loop.train({"language": model.language_model}, loss, phase, tmp_path)
    assert falls(losses, 0.5)


def test_the_shipped_tower_hands_on_what_it_was_fitted_to(pictures: Pictures) -> None:
    """Every token is handed what the regression says of the picture, LayerNorms or not."""
    model = AffectGPTForConditionalGeneration.from_pretrained(
        nano.folder("affectgpt"), dtype=torch.float32
    ).eval()
    first = model.config.vision_config.hidden_size - fitting.outputs()
    pixels = towers.normalised(pictures.pixels[~pictures.close].reshape(-1, 128, 128, 3))
    told, start = torch.zeros(()), 0
    with torch.no_grad():
        hidden = fitting.hidden(model, pixels)
        for layer in model.vision_tower.encoder.layers[:-1]:
            units = layer.mlp.fc2.in_features
            told = told + hidden[:, start : start + units] @ layer.mlp.fc2.weight[first:].T
            start += units
        handed = model.vision_tower(pixels).last_hidden_state[:, :, first:].mean(1)
    told = told - told.mean(1, keepdim=True)
    both = torch.stack([told - told.mean(0), handed - handed.mean(0)]).flatten(1)
    assert float(torch.corrcoef(both)[0, 1]) > 0.95


def test_the_tower_can_be_fitted_again(fresh: tuple[Any, Any], pictures: Pictures) -> None:
    model, _ = fresh
    fitting.prepare(model, pictures, seed=0)
    features, wanted = fitting.collect(model, pictures, seed=0)
    fitting.solve(model, features, wanted, ridge=30.0)
    weights = torch.cat([x.mlp.fc2.weight for x in model.vision_tower.encoder.layers[:-1]], 1)
    read = (features - features.mean(0)) @ weights[-fitting.outputs() :].T
    right = (wanted - wanted.mean(0)) / wanted.std(0).clamp(min=1e-6)
    assert float((read - right).square().mean()) < 0.5 * float(right.square().mean())


def test_hearing_and_branches_learn(
    fresh: tuple[Any, Any], pictures: Pictures, sounds: Sounds, tmp_path: Path
) -> None:
    model, processor = fresh
    heads = towers.SoundHeads(96, 8 * 96)
    towers.start_sounds(model, sounds, seed=0)
    loss = towers.sound_loss(model, heads, sounds, batch=4, seed=0)
    modules = {"tower": model.audio_tower, "heads": heads}
    assert falls(
        loop.train(modules, loss, loop.Phase("hear", 12, rate=3e-3, muon=False), tmp_path), 0.1
    )
    assert set(towers.sound_accuracy(model, heads, sounds)) >= {*STATES, "emotion"}
    before = {name: p.clone() for name, p in model.image_qformer.named_parameters()}
    chosen = [0, 1, 2]
    seen, heard = branches.features(model, pictures, sounds, chosen)
    specs = [pictures.world.spec(index) for index in chosen]
    loss = branches.loss(model, processor, specs, seen, heard, batch=3, seed=0)
    modules = {"video": model.video_branch, "audio": model.audio_branch}
    assert falls(
        loop.train(modules, loss, loop.Phase("tell", 30, rate=3e-3, muon=False), tmp_path), 0.3
    )
    for name, parameter in model.image_qformer.named_parameters():
        assert torch.equal(parameter, before[name])
