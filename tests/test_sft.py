"""AffectGPT's training stage: learns, resumes, drops nobody, and its perspectives stay apart."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("swift")

from emolib import sft
from emolib.__main__ import main
from emolib.datasets.clip import Clip
from emolib.datasets.open import open_dataset, read_dataset
from emolib.datasets.splits import apply_split
from emolib.engines.swift_setup import ModelFolder
from emolib.engines.tiny import tiny_folder
from emolib.errors import (
    DataError,
    EngineError,
    MissingDependencyError,
    ParamsError,
)
from emolib.ledger import Ledger
from emolib.models.affectgpt.engine import AffectGPTEngine
from emolib.params import DataParams, Decoding, ModelParams, profiles
from emolib.params.affectgpt import SftParams
from emolib.sft.command import build_arguments
from emolib.sft.data import check_lengths
from emolib.training.process import swift_arguments
from tests.paths import searched_first
from tests.shared import shared

MODEL = ModelParams(
    model="tiny:affectgpt",
    device="cpu",
    dtype="float32",
    batch_size=8,
    decoding=Decoding(max_new_tokens=24),
)
RECIPE = SftParams(
    epochs=3, batch_size=4, learning_rate=0.02, min_learning_rate=0.01, gradient_checkpointing=False
)
DATA = DataParams(kind="demo", clips=10)

# Kills the process that trains, TRAINER, when one of its checkpoints is complete.
KILL = """
import os, pathlib, signal, time
touch = pathlib.Path.touch
def touch_and_kill(self, *args, **kwargs):
    touch(self, *args, **kwargs)
    if self.parent.name == "CHECKPOINT":
        os.kill(int(os.environ["TRAINER"]), signal.SIGKILL)
        time.sleep(60)
pathlib.Path.touch = touch_and_kill
"""


class World:
    """Clips and rows, with everything trained below one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        tiny_folder("affectgpt", home / "models")
        self.clips = open_dataset(DATA, home)
        self.split = sft.split_dataset(self.clips, home / "split.json")
        pictures = sft.open_pictures("", DATA, home, "test")[:5]
        self.rows = [*sft.clip_rows(self.split.train, "paper"), *sft.picture_rows(pictures)]
        self.val = sft.clip_rows(self.split.val, "paper")

    def plan(self, recipe: SftParams, seed: int = 0) -> sft.Plan:
        return sft.plan(len(self.split.train), 5, 0.5, recipe, seed)

    def train_zero(self, name: str, deepspeed: str) -> sft.Trained:
        """Two epochs of two steps, over two processes."""
        parts = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 2, "processes": 2}
        recipe = RECIPE.model_copy(update=parts | {"deepspeed": deepspeed})
        return self.train(name, recipe, val=())

    def train_plainly(self, name: str, processes: int) -> sft.Trained:
        """Three epochs of a step of two rows, and no dropout, of which each process has its own."""
        folder = self.home / "without-dropout"
        if not folder.exists():
            shutil.copytree(tiny_folder("affectgpt", self.home / "models"), folder)
            config = (folder / "config.json").read_text()
            config = re.sub(r'(dropout\w*"): 0\.\d+', r"\1: 0.0", config)
            (folder / "config.json").write_text(config)
        parts = {"steps_per_epoch": 1, "batch_size": 2 // processes, "processes": processes}
        parts |= {"learning_rate": 1e-3, "min_learning_rate": 1e-3}
        recipe = RECIPE.model_copy(update=parts)
        clips = self.plan(recipe).order.reshape(3, 2) < len(self.split.train)
        assert any(one != other for one, other in clips)
        model = MODEL.model_copy(update={"model": str(folder)})
        return self.train(name, recipe, val=(), model=model)

    def train(self, name: str, recipe: SftParams = RECIPE, **more: Any) -> sft.Trained:
        more = {"val": self.val, "features": self.home / "features", **more}
        plan = self.plan(recipe)
        rows, model = more.pop("rows", self.rows), more.pop("model", MODEL)
        return sft.train_branches(
            model, recipe, rows, plan, self.home / name, cache=self.home / "models", **more
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return World(tmp_path_factory.mktemp("sft"))


@pytest.fixture(scope="module")
def trained(world: World) -> sft.Trained:
    return world.train("straight")


def test_training_learns_and_reports(trained: sft.Trained) -> None:
    losses = [e["loss"] for e in trained.history if "loss" in e]
    assert [e["step"] for e in trained.history if "loss" in e] == list(range(1, 13))
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.02
    assert [(c.step, c.epoch) for c in trained.checkpoints] == [(4, 1), (8, 2), (12, 3)]
    assert all(c.eval_loss is not None and c.file.is_file() for c in trained.checkpoints)
    assert trained.tensors == 116
    assert trained.seen == {"clips": 24, "pictures": 24}


def test_only_the_branches_are_kept(world: World, trained: sft.Trained) -> None:
    from safetensors.torch import load_file

    tensors = load_file(trained.checkpoints[-1].file)
    assert len(tensors) == 116
    assert sum(t.numel() for t in tensors.values()) == trained.parameters
    folder = world.home / "straight" / trained.key
    assert not list(folder.glob("checkpoint-*/model*.safetensors"))
    with_optimizer = list(folder.glob("checkpoint-*/optimizer.pt"))
    assert [path.parent.name for path in with_optimizer] == ["checkpoint-12"]


def kill_at(world: World, checkpoint: str, train: str) -> None:
    """Train in a process that dies when a checkpoint of its training is complete."""
    folder = world.home / f"kill-{checkpoint}"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KILL.replace("CHECKPOINT", checkpoint))
    code = (
        "import os, sys; from pathlib import Path; import tests.test_sft as t;"
        f"os.environ['TRAINER'] = str(os.getpid()); t.World(Path(sys.argv[1])).{train}"
    )
    path = os.pathsep.join([str(folder), searched_first(Path(__file__).resolve().parents[1])])
    ended = subprocess.run(
        [sys.executable, "-c", code, str(world.home)], env=os.environ | {"PYTHONPATH": path}
    )
    assert ended.returncode == -signal.SIGKILL


def test_killed_training_goes_on_with_the_same_losses(world: World, trained: sft.Trained) -> None:
    kill_at(world, "checkpoint-8", "train('killed')")
    assert not (world.home / "killed" / trained.key / "result.json").exists()
    resumed = world.train("killed")
    assert resumed.resumed_from == 8
    assert resumed.history == trained.history
    ours, theirs = resumed.checkpoints[-1].file, trained.checkpoints[-1].file
    assert ours.read_bytes() == theirs.read_bytes()


def test_cached_training_is_the_uncached_one(world: World, trained: sft.Trained) -> None:
    """Every training and validation loss, not the first alone."""
    recipe = RECIPE.model_copy(update={"cache": False})
    uncached = world.train("uncached", recipe, features=None)
    assert not (world.home / "uncached" / uncached.key / "features").exists()
    for one, other in zip(uncached.history, trained.history, strict=True):
        assert one == pytest.approx(other, abs=1e-5), one["step"]


def test_two_processes_killed_and_resumed_train_as_one(world: World) -> None:
    """The same rows a step, of which one process may have no sound: the curves are the same.

    Adam moves a weight whose gradient is rounding noise (every key's bias) by a whole step, so
    they are the same up to what such steps of 0.001 change.
    """
    kill_at(world, "checkpoint-2", "train_plainly('two', processes=2)")
    two = world.train_plainly("two", processes=2)
    one = world.train_plainly("one", processes=1)
    assert (two.resumed_from, one.resumed_from) == (2, 0)
    curves = [np.array([(e["loss"], e["grad_norm"]) for e in t.history]) for t in (two, one)]
    assert curves[1].shape == (3, 2)
    np.testing.assert_allclose(*curves, rtol=1e-4)


def test_predict_asks_a_folder_with_the_branches_trained_for_it(
    world: World, trained: sft.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = profiles.base_params
    outputs = str(tmp_path / "outputs")
    monkeypatch.setattr(
        profiles, "base_params", lambda r, p: real(r, p).model_copy(update={"outputs": outputs})
    )
    folder = tiny_folder("affectgpt", world.home / "models")
    said = []
    for more in ([], ["--adapter", str(trained.checkpoints[-1].file)]):
        words = ["predict", str(world.clips[0].video), "--model", str(folder), *more]
        assert main([*words, "--out", str(tmp_path / "out.jsonl")]) == 0
        [row] = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
        said.append((row["system"], row["description"]))
    assert [system for system, _ in said] == [folder.name] * 2
    assert said[0] != said[1]


def test_finished_training_is_not_repeated(
    world: World, trained: sft.Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("trains again"))
    assert world.train("straight") == trained


def test_a_seed_is_another_training(world: World, trained: sft.Trained) -> None:
    orders = [world.plan(RECIPE, seed).order for seed in (0, 1)]
    assert not np.array_equal(*orders)
    at = trained.command.index("--seed")
    assert trained.command[at + 1] == "0"
    named = sft.chosen_branches({0: trained, 1: trained}, "last")
    assert list(named) == ["AffectGPT-SFT, seed 0", "AffectGPT-SFT, seed 1"]
    named = sft.chosen_branches({0: trained}, "1-2")
    assert list(named) == ["AffectGPT-SFT, epoch 1", "AffectGPT-SFT, epoch 2"]


def test_nobody_is_dropped(world: World) -> None:
    short = RECIPE.model_copy(update={"max_length": 300})
    with pytest.raises(DataError, match=r"\d+ of 13 rows are longer than max_length = 300"):
        world.train("short", short)
    assert not (world.home / "short").exists()


def test_checkpoints_are_chosen_without_the_test(trained: sft.Trained) -> None:
    assert trained.choose("last") == [trained.checkpoints[-1]]
    [best] = trained.choose("best")
    assert best.eval_loss == min(c.eval_loss for c in trained.checkpoints if c.eval_loss)
    assert [c.epoch for c in trained.choose("2-9")] == [2, 3]
    with pytest.raises(ParamsError, match="no epoch in 7-9"):
        trained.choose("7-9")
    blind = replace(trained, checkpoints=[replace(c, eval_loss=None) for c in trained.checkpoints])
    with pytest.raises(ParamsError, match="needs validation clips"):
        blind.choose("best")


def test_the_plan_mixes_evenly() -> None:
    recipe = RECIPE.model_copy(update={"epochs": 5, "steps_per_epoch": 6})
    plan = sft.plan(7, 11, 0.25, recipe, 3)
    assert len(plan.order) == 5 * 6 * 4
    epochs = plan.order.reshape(5, -1)
    assert [(epoch >= 7).sum() for epoch in epochs] == [6] * 5
    for rows in (plan.order[plan.order < 7], plan.order[plan.order >= 7]):
        counts = Counter(rows.tolist()).values()
        assert max(counts) - min(counts) <= 1
    assert np.array_equal(plan.order, sft.plan(7, 11, 0.25, recipe, 3).order)
    whole = sft.plan(7, 11, 0.25, RECIPE.model_copy(update={"epochs": 1}), 0)
    assert set(range(7)) <= set(whole.order.tolist())
    with pytest.raises(DataError, match="no pictures"):
        sft.plan(7, 0, 0.5, RECIPE, 0)
    assert sft.open_pictures("nowhere", DATA, Path("nowhere"), "test", 0.0) == []


def test_demo_pictures_are_three_moments_of_every_training_clip(world: World) -> None:
    pictures = sft.open_pictures("", DATA, world.home, "test")
    clips = Counter(picture.name.rpartition("@")[0] for picture in pictures)
    assert clips == {clip.name: 3 for clip in world.split.train}
    assert len({picture.image for picture in pictures}) == len(pictures)


def test_the_split_is_drawn_and_recorded_by_name(world: World, tmp_path: Path) -> None:
    clips = [
        Clip(str(i), Path("x.mp4"), labels=("calm",), description="Calm.", group=str(i // 2))
        for i in range(40)
    ]
    split = sft.split_dataset(clips, tmp_path / "s.json", test=8, val=4, seed=5)
    assert split.to_json() == {"train": 28, "val": 4, "test": 8}
    parts = [{clip.group for clip in part} for part in (split.train, split.val, split.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["splits"]["test"] == sorted(clip.name for clip in split.test)
    assert record["about"]["seed"] == 5
    again = {clip.name: clip.split for clip in apply_split(clips, tmp_path / "s.json")}
    assert all(again[clip.name] == "val" for clip in split.val)
    with pytest.raises(DataError, match="no clip for train"):
        sft.split_dataset(clips, tmp_path / "t.json")
    with pytest.raises(DataError, match="no clip for val, so no checkpoint can be the best"):
        sft.split_dataset(clips, tmp_path / "v.json", test=8, checkpoint="best")
    assert not (tmp_path / "v.json").exists()
    bare = [replace(clip, description=None) for clip in clips]
    with pytest.raises(DataError, match="28 train clips without description"):
        sft.split_dataset(bare, tmp_path / "u.json", test=8, val=4)


def test_rows_say_only_what_there_is(world: World) -> None:
    from tests.media_files import write_video

    mute = write_video(world.home / "mute.mp4", 12)
    [row] = sft.clip_rows([Clip("mute", mute, description="Still.")], "paper")
    prompt = row["messages"][0]["content"]
    assert "<AudioHere>" not in prompt
    assert "Subtitle" not in prompt
    assert "<ImageHere>" in prompt
    assert row["audios"] == []
    questions = {r["messages"][0]["content"] for r in world.rows if r["source"] == "pictures"}
    assert 1 < len(questions) <= 4


def test_lengths_name_the_longest(world: World) -> None:
    from emolib.models.affectgpt import AffectGPTProcessor

    processor = AffectGPTProcessor.from_pretrained(tiny_folder("affectgpt", world.home / "models"))
    longest = check_lengths(world.rows, processor, 1024)
    assert check_lengths(world.rows, processor, longest) == longest
    with pytest.raises(DataError, match=f"the longest has {longest}"):
        check_lengths(world.rows, processor, longest - 1)


@pytest.mark.shared
def test_real_descriptions_become_rows_whole(world: World, tmp_path: Path) -> None:
    """EMER v2: 266 and 66 clips or 240, 26 and 66, every description learnt to its last word."""
    from emolib.models.affectgpt import AffectGPTProcessor

    shutil.copy(shared("data/emer/final-EMER-reason.csv"), tmp_path)
    shutil.copy(shared("data/mer2024_ov/check-openset.csv"), tmp_path)
    words = str(shared("data/mer2023_text/transcription-engchi-polish.csv"))
    data = DataParams(kind="emer-v2", root=str(tmp_path), media="none", subtitles=words)
    clips = [
        replace(clip, video=Path("x.npy"), audio=Path("x.wav"))
        for clip in read_dataset(data, tmp_path).items
    ]
    whole = sft.split_dataset(clips, tmp_path / "split.json", test=66)
    assert whole.to_json() == {"train": 266, "val": 0, "test": 66}
    split = sft.split_dataset(clips, tmp_path / "split.json", test=66, val=26)
    assert split.test == whole.test
    assert split.to_json() == {"train": 240, "val": 26, "test": 66}
    processor = AffectGPTProcessor.from_pretrained(tiny_folder("affectgpt", world.home / "models"))
    rows = sft.clip_rows([*split.train, *split.val], "paper")
    tokenizer = processor.tokenizer
    for row in rows:
        prompt, answer = (message["content"] for message in row["messages"])
        ids, labels = processor.encode([(prompt, answer)])
        asked = [i for i, label in zip(ids, labels, strict=True) if label == -100][1:]
        said = [label for label in labels if label != -100]
        assert tokenizer.decode(said) == answer + "###"
        assert asked.count(processor.video_token_id) == processor.video_tokens
        assert asked.count(processor.audio_token_id) == processor.audio_tokens
        media = (processor.video_token_id, processor.audio_token_id)
        text = tokenizer.decode([i for i in asked if i not in media])
        assert text == prompt.replace("<ImageHere>", "").replace("<AudioHere>", "")


# Perspectives ------------------------------------------------------------------------------


def ask(world: World, clips: list[Clip], name: str, branches: Path | None = None) -> dict:
    with (
        AffectGPTEngine(MODEL, "tiny", branches, world.home / "models") as engine,
        Ledger(world.home / f"{name}.jsonl") as ledger,
    ):
        said = sft.describe(clips, engine, ledger, system="x")
    return {view: [p.description for p in rows] for view, rows in said.items()}


def test_a_perspective_changes_with_its_own_modality_alone(world: World) -> None:
    clips = [replace(clip, audio=clip.video) for clip in world.clips[:3]]
    other = world.clips[4]
    variants = {
        "video": [replace(clip, video=other.video) for clip in clips],
        "audio": [replace(clip, audio=other.video) for clip in clips],
        "text": [replace(clip, subtitle=other.subtitle) for clip in clips],
    }
    before = ask(world, clips, "v0")
    for changed, varied in variants.items():
        after = ask(world, varied, f"v-{changed}")
        for view in ("all", "video", "audio", "text"):
            same = after[view] == before[view]
            assert same == (view not in ("all", changed)), (changed, view)


def test_a_folder_that_hears_as_published_is_given_every_channel(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By predictions and by the cache that training fills."""
    from emolib.models.affectgpt import AffectGPTForConditionalGeneration, AffectGPTProcessor
    from emolib.models.affectgpt.sound import ImageBindFeatureExtractor
    from emolib.sft.worker import fill_cache
    from tests.media_files import write_audio

    folder = tmp_path / "compat"
    shutil.copytree(tiny_folder("affectgpt", world.home / "models"), folder)
    processor = AffectGPTProcessor.from_pretrained(folder)
    processor.feature_extractor.reference_compat = True
    processor.save_pretrained(folder)
    stereo = np.random.default_rng(0).normal(0, 0.1, (2, 40_000)).astype(np.float32)
    file = write_audio(tmp_path / "stereo.wav", stereo, 22_050)
    heard: list[tuple[int, ...]] = []
    clips = ImageBindFeatureExtractor.clips

    def listening(self: Any, waveform: np.ndarray, rate: int) -> np.ndarray:
        heard.append((*waveform.shape, rate))
        return clips(self, waveform, rate)

    monkeypatch.setattr(ImageBindFeatureExtractor, "clips", listening)
    for model in (MODEL.model, str(folder)):
        params = MODEL.model_copy(update={"model": model})
        with (
            AffectGPTEngine(params, "tiny", cache=world.home / "models") as engine,
            Ledger(tmp_path / f"{len(heard)}.jsonl") as ledger,
        ):
            clip = replace(world.clips[0], audio=file)
            [said] = sft.describe([clip], engine, ledger, system="x", views=["audio"])["audio"]
        assert said.status == "ok", said.error
    assert [channels for channels, *_ in heard] == [1, 2]
    assert heard[1] == (2, 29_025, 16_000)

    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"videos": [], "audios": [str(file)]}))
    monkeypatch.setenv("AFFECTGPT_CACHE", str(tmp_path / "features"))
    architecture = AffectGPTForConditionalGeneration
    fill_cache(architecture.from_pretrained(folder), processor, ["--dataset", str(rows)], {0})
    assert heard[2:] == [(2, 29_025, 16_000)]


def test_the_first_row_is_cached_although_the_plan_leaves_it_out(tmp_path: Path) -> None:
    """ms-swift encodes it to show it before the first step."""
    from emolib.sft.worker import _media

    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"videos": [f"{n}.mp4"]}) for n in range(4)))
    found = _media(["--dataset", str(file)], "videos", seen={2})
    assert list(found) == [Path("0.mp4"), Path("2.mp4")]


def test_training_moves_all_but_the_text(world: World, trained: sft.Trained) -> None:
    before = ask(world, world.clips[:4], "before")
    after = ask(world, world.clips[:4], "after", trained.checkpoints[-1].file)
    assert before["text"] == after["text"]
    for view in ("all", "video", "audio"):
        assert before[view] != after[view]


def test_batches_of_mixed_perspectives_answer_as_single_ones(world: World) -> None:
    together = ask(world, world.clips[:3], "together")
    single = [ask(world, [clip], f"single-{clip.name}") for clip in world.clips[:3]]
    for view, answers in together.items():
        assert answers == [one[view][0] for one in single]


def test_what_is_missing_is_said(world: World, tmp_path: Path) -> None:
    from tests.media_files import write_video

    mute = Clip("mute", write_video(tmp_path / "mute.mp4", 12))
    gone = Clip("gone", tmp_path / "gone.mp4", subtitle="Hm.")
    with (
        AffectGPTEngine(MODEL, "tiny", cache=world.home / "models") as engine,
        Ledger(tmp_path / "l.jsonl") as ledger,
    ):
        said = sft.describe([mute, gone], engine, ledger, system="x")
        rows = len(ledger)
        again = sft.describe([mute, gone], engine, ledger, system="x")
        assert len(ledger) == rows
        assert again["video"][0] == said["video"][0]
    assert said["audio"][0].info["absent"] == "no sound"
    assert said["audio"][0].status == "ok"
    assert said["text"][0].info["absent"] == "no words"
    assert said["all"][0].description
    assert said["all"][1].status == "error"
    assert "gone.mp4" in str(said["all"][1].error)
    assert said["text"][1].status == "ok"


def test_branches_of_another_model_are_refused(world: World, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "branches.safetensors"
    save_file({"video_branch.projection.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(EngineError, match="does not fit this model"):
        AffectGPTEngine(MODEL, "tiny", file, world.home / "models")


def test_another_trainable_set_is_refused(world: World) -> None:
    from emolib.models.affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration
    from emolib.models.affectgpt.trained import PUBLISHED, check_trainable

    folder = tiny_folder("affectgpt", world.home / "models")
    model = AffectGPTForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(EngineError, match="trained besides the branches"):
        check_trainable(model)
    assert check_trainable(model)[0] == 116

    import torch

    config = AffectGPTConfig()
    with torch.device("meta"):
        full = AffectGPTForConditionalGeneration(config)
    full.freeze_towers()
    assert check_trainable(full) == PUBLISHED == (116, 44_959_744)


def arguments_of(recipe: SftParams, dtype: str, out: Path) -> list[str]:
    found = ModelFolder(Path("/weights/affectgpt"), "affectgpt", "bfloat16")
    plan = sft.Plan(np.arange(8), 4, 8, {})
    model = MODEL.model_copy(update={"dtype": dtype})
    return build_arguments(model, recipe, found, 8, plan, False, out, 0, None)


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero2_offload"])
def test_deepspeed_is_a_word_of_the_recipe(name: str, tmp_path: Path) -> None:
    words = " ".join(arguments_of(SftParams(deepspeed=name, processes=4), "auto", tmp_path))
    assert f"--deepspeed {name} " in words
    assert "--fp16" not in words
    plain = " ".join(arguments_of(SftParams(), "auto", tmp_path))
    assert "--deepspeed" not in plain


def test_float32_is_trained_in_float32(tmp_path: Path) -> None:
    """ms-swift would compute in fp16, and have DeepSpeed turn the weights into it."""
    assert "--fp16 false" in " ".join(arguments_of(SftParams(), "float32", tmp_path))
    assert "--fp16" not in arguments_of(SftParams(), "bfloat16", tmp_path)
    assert "--fp16 false" in " ".join(swift_arguments({"torch_dtype": "float32"}))


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="to run it: pip install deepspeed"
)
def test_deepspeed_goes_on_after_a_kill_and_learns_the_same(world: World) -> None:
    """Two processes over gloo, ZeRO-2; the kill comes after the first of two checkpoints."""
    from safetensors.torch import load_file

    plain = world.train_zero("two", "")
    kill_at(world, "checkpoint-2", "train_zero('two-zero', 'zero2')")
    zero = world.train_zero("two-zero", "zero2")
    assert zero.resumed_from == 2
    losses = [[e["loss"] for e in one.history if "loss" in e] for one in (plain, zero)]
    np.testing.assert_allclose(losses[1], losses[0], atol=2e-5)
    first, last = (c.file.parent for c in zero.checkpoints)
    assert not list(first.glob("global_step*"))
    assert [path.name for path in last.glob("global_step*")] == ["global_step4"]
    # what is frozen is in none of it
    kept = sum(path.stat().st_size for path in last.rglob("*_states.pt"))
    assert kept < 20 * zero.parameters
    ours, theirs = (load_file(one.checkpoints[-1].file) for one in (zero, plain))
    for name, weights in ours.items():
        np.testing.assert_allclose(weights, theirs[name], atol=1e-4, err_msg=name)


def test_deepspeed_that_is_not_installed_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"deepspeed = 'zero2' needs DeepSpeed"):
        world.train("zero", RECIPE.model_copy(update={"deepspeed": "zero2"}))
    assert not (world.home / "zero").exists()


def test_recipe_is_checked() -> None:
    with pytest.raises(ValueError, match="deepspeed: 'zero3' would divide the frozen towers"):
        SftParams(deepspeed="zero3")
    with pytest.raises(ValueError, match="every crop is another picture"):
        SftParams(crop=True)
    assert SftParams(crop=True, cache=False).crop
