"""The shipped nano models, and the training that made them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from emolib import nano, prompts
from emolib.demo import internvl, llava, loop, pictures, texts
from emolib.demo.train import main
from emolib.errors import MissingModelError
from emolib.params.schemas import ModelParams

LIMIT = 16e6  # bytes of all shipped models together


@pytest.mark.parametrize("name", nano.names())
def test_a_shipped_model_is_what_its_card_says(name):
    card = nano.card(name)
    assert nano.changed(nano.folder(name)) == []
    assert card["command"].startswith(f"python -m emolib.demo.train {name} ")
    assert card["recipe"]["clips"] > 0
    assert card["scores"]
    knows_target = bool(card["recipe"].get("target_clips"))
    assert ("target" in card["data"]["never_seen"]) != knows_target
    assert ("target" in card["data"]["domain"]) == knows_target


def test_a_changed_file_is_noticed(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(nano.folder("internvl"), copy)
    (copy / "config.json").write_text("{}")
    (copy / "more.txt").write_text("x")
    assert nano.changed(copy) == ["config.json", "more.txt"]


def test_all_shipped_models_are_small():
    sizes = [file.stat().st_size for file in nano.ROOT.rglob("*") if file.is_file()]
    assert 0 < sum(sizes) <= LIMIT


def test_an_unknown_nano_model_is_named_with_the_choices():
    with pytest.raises(MissingModelError, match="internvl"):
        nano.folder("nano:gpt")


def test_pictures_are_those_of_train_and_val_only():
    with pytest.raises(ValueError, match="test"):
        pictures.World(clips=1, split="test")


def test_a_picture_shows_the_same_whoever_renders_it(tmp_path):
    wanted = pictures.World(clips=4, seed=5)
    made = pictures.rendered(wanted, tmp_path)
    again, times, faces = pictures.clip_pictures(wanted, 3)
    assert (made.pixels[3] == again).all()
    assert (made.times[3] == times).all()
    assert (made.faces[3] == faces).all()
    assert made.close.tolist() == [False, False, False, True]


def test_answers_name_what_is_shown_and_no_more():
    of = pictures.World(clips=40, seed=5)
    for index in range(of.clips):
        clip = of.spec(index)
        close = texts.shown(clip, close=True)
        assert not any(c.startswith(("body", "setting")) for c in close.concepts())
        whole = texts.shown(clip, close=False)
        answer = texts.clip_answer(whole, 0)
        listed = json.loads(answer[answer.index("[") :])
        assert listed == [texts.label(c, 0) for c in whole.concepts()]
        assert "{" not in answer


def test_a_turned_face_is_told_only_by_its_cry():
    of = pictures.World(clips=60, seed=5)
    turned = next(of.spec(i) for i in range(60) if of.spec(i).turned)
    seen = texts.shown(turned, close=True)
    assert seen.concepts() == ()
    cried = texts.Shown(turned, "", cried=True)
    assert cried.concepts() == (turned.latent.concept("core"),)


def test_similarity_is_symmetric_and_one_for_equal_sets():
    rng = np.random.default_rng(0)
    concepts = ["core.sad.mild", "core.sad.strong", "core.calm.mild", "body.ashamed", "words.proud"]
    for _ in range(50):
        a, b = (set(rng.choice(concepts, rng.integers(0, 4), replace=False)) for _ in range(2))
        assert texts.similarity(list(a), list(b)) == texts.similarity(list(b), list(a))
        assert texts.similarity(list(a), list(a)) == 1.0
        assert 0 <= texts.similarity(list(a), list(b)) <= 1


@pytest.mark.parametrize(("module", "count"), [(internvl, 2), (llava, 1)])
def test_questions_are_written_as_ms_swift_writes_them(module, count):
    from PIL import Image

    from emolib.engines.swift_setup import find_model, load_model

    params = ModelParams(model=f"nano:{module.__name__.rpartition('.')[2]}", device="cpu")
    found = find_model(params)
    model, processor = load_model(params, found, "float32")
    from swift.template import get_template

    template = get_template(processor, template_type=found.template or None)
    template.set_mode("train")
    speaker = module.speaker(model, processor)
    question = prompts.CAPTION.template
    sample = texts.Sample(question, 'She is sad. ["sad"]', ((0, 0),) * count)
    messages = [
        {"role": "user", "content": "<image>" * count + question},
        {"role": "assistant", "content": sample.answer},
    ]
    images = [Image.fromarray(np.zeros((224, 224, 3), np.uint8))] * count
    made = template.encode({"messages": messages, "images": images})
    assert list(made["input_ids"]) == speaker.question(sample) + speaker.answer(sample)


def test_a_stopped_training_goes_on_where_it_was(tmp_path):
    import torch

    def run(steps: int, folder) -> list[float]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 1)

        def loss(step: int) -> torch.Tensor:
            x = torch.from_numpy(np.random.default_rng(step).normal(size=(8, 3))).float()
            return (layer(x) - x.sum(1, keepdim=True)).square().mean()

        phase = loop.Phase("p", 20, rate=0.1, save=10)
        if steps < 20:

            def stopped(step: int) -> torch.Tensor:
                if step == steps:
                    raise KeyboardInterrupt
                return loss(step)

            with pytest.raises(KeyboardInterrupt):
                loop.train({"layer": layer}, stopped, phase, folder)
            return []
        return loop.train({"layer": layer}, loss, phase, folder)

    whole = run(20, tmp_path / "whole")
    run(15, tmp_path / "parts")
    assert run(20, tmp_path / "parts") == pytest.approx(whole)
    assert whole[-1] < whole[0]


@pytest.mark.parametrize("name", ["internvl", "teacher"])
def test_a_few_steps_of_training_lower_the_loss_and_give_a_model(name, tmp_path):
    out = tmp_path / "model"
    options = ["--clips", "12", "--val-clips", "4", "--tower-steps", "12", "--language-steps", "10"]
    options += ["--reading-steps", "4"]
    if name == "teacher":  # both domains, the tower in two rounds
        options += ["--target-clips", "12"]
    assert main([name, "--out", str(out), "--cache", str(tmp_path), *options]) == 0
    card = json.loads((out / nano.CARD).read_text())
    for first, last in card["losses"].values():
        assert last < first
    assert nano.changed(out) == []
    assert ("target" in card["data"]["domain"]) == (name == "teacher")
    assert (out / "README.md").is_file()


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_muon_moves_a_matrix_equally_in_all_directions(shape):
    import torch

    from emolib.demo.muon import orthogonal

    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert len(values) == min(shape)
    assert values.min() > 0.5
    assert values.max() < 1.3
