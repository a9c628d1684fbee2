"""The nano AffectGPT: found by its name, as its card says, and trainable again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emolib import nano
from emolib.datasets.demo import lines
from emolib.datasets.demo.cast import PLACES
from emolib.demo import loop, tower
from emolib.demo.affectgpt import branches, cameras, language, make, openings, texts, towers
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
    assert sum(f.stat().st_size for f in folder.iterdir()) < 5_000_000
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


def test_a_list_names_every_note() -> None:
    for index in range(20):
        one = texts.sample(index, "list")
        assert one.video is not None
        assert one.audio is not None
        assert one.answer.split(", ") == [*one.video.values(), *one.audio.values()]
        assert texts.LIST in one.prompt


def test_half_of_the_rows_have_notes_where_branches_write_them(fresh: tuple[Any, Any]) -> None:
    """Told by the place of the posture: the others have it anywhere."""
    model, processor = fresh
    notes = language.Notes(model, processor.tokenizer)
    row, places = {"noun": "woman", "body": "shrug"}, 12
    rows = [row] * 400
    written = notes.places(rows, language.SEEN, places, np.random.default_rng(0)).detach()
    ids = processor.tokenizer.encode(" shrug", add_special_tokens=False)
    word = model.get_input_embeddings().weight.detach()[ids].mean(0)
    at = (written @ word).argmax(1)
    share = float((at == language.SEEN.index("body")).float().mean())
    assert 0.4 < share < 0.75


def test_the_language_model_learns(fresh: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = fresh
    loss = language.answer_loss(model, processor, 1, batch=2, seed=0)
    phase = loop.Phase("few", 20, rate=3e-3, warmup=0.1)
    losses = loop.train({"language": model.language_model}, loss, phase, tmp_path)
    assert falls(losses, 0.5)


def test_the_tower_starts_as_the_nano_internvls(fresh: tuple[Any, Any], pictures: Pictures) -> None:
    """Both normalise pixels in their own way, and BLIP-2 ends with a LayerNorm."""
    model, _ = fresh
    known = towers.seen_before().eval()
    towers.take_over(model.vision_tower, known)
    pixels = pictures.pixels[0]
    embedded = model.vision_tower.embeddings(towers.normalised(pixels))
    with torch.no_grad():
        ours = model.vision_tower.encoder(inputs_embeds=embedded).last_hidden_state
        theirs = known(tower.normalised(pixels, 96)).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_seeing_learns(fresh: tuple[Any, Any], pictures: Pictures, tmp_path: Path) -> None:
    model, _ = fresh
    heads = towers.PictureHeads(model.config.image_qformer_config.hidden_size)
    loss = towers.picture_loss(model, heads, pictures, batch=4, seed=0)
    modules = {"tower": model.vision_tower, "qformer": model.image_qformer, "heads": heads}
    assert falls(loop.train(modules, loss, loop.Phase("see", 12, rate=2e-3), tmp_path), 1.0)
    assert {"core", "body", "setting"} <= set(towers.picture_accuracy(model, heads, pictures, 1.0))


def test_other_cameras_change_light_and_leave_what_is_there(pictures: Pictures) -> None:
    pixels = pictures.pixels[0]
    assert np.array_equal(cameras.filmed(pixels, np.random.default_rng(0), 0.0), pixels)
    taken = cameras.filmed(pixels, np.random.default_rng(0), 1.0)
    assert taken.shape == pixels.shape
    for before, after in zip(pixels, taken, strict=True):
        inner = (slice(16, -16), slice(16, -16))
        grey = np.stack([before[inner].mean(2).flatten(), after[inner].mean(2).flatten()])
        assert not np.array_equal(before, after)
        assert np.corrcoef(grey)[0, 1] > 0.8


def test_descriptions_may_begin_otherwise() -> None:
    changed = 0
    for index in range(30):
        plain, varied = (texts.sample(index, texts.ALL, varied=v) for v in (False, True))
        assert plain.video is not None
        assert varied.video is not None
        different = [kind for kind, word in plain.video.items() if varied.video[kind] != word]
        assert different in ([], ["place"])
        changed += bool(different)
        assert "{" not in varied.answer
    assert 15 < changed < 30
    unseen = {place.name for part in PLACES for place in PLACES[part] if part[0] == "target"}
    rng = np.random.default_rng(0)
    drawn = {openings.opening(rng) for _ in range(3000)}
    assert len(drawn) > 300
    assert not drawn & set(lines.OPENING["target"])
    assert len(unseen & {*openings.PLACES, *openings.OUTSIDE}) == 3


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
