"""From clips to labels, with a fake engine for the rules and a tiny real one for the way."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emolib.__main__ import main
from emolib.datasets.clip import Clip
from emolib.engines.swift_setup import find_model, load_model
from emolib.engines.tiny import build_tiny
from emolib.errors import DataError
from emolib.ledger import Ledger
from emolib.media import faces
from emolib.media.detectors import Face
from emolib.params import Decoding, ModelParams, profiles
from emolib.params.media import FaceParams
from emolib.predict import (
    detection_rate,
    gold_labels,
    labels_of,
    predict,
    read_labels,
    summary,
)
from tests.fake_server import FakeServer
from tests.fakes import FakeEngine
from tests.media_files import HEIGHT, WIDTH, number_of, write_video
from tests.shared import shared

ANSWER = 'She frowns. ["Angry", "a bit sad"]'


@pytest.fixture
def clips(tmp_path):
    made = []
    for i in range(3):
        video = write_video(tmp_path / f"c{i}.mp4", 60)
        made.append(Clip(f"c{i}", video, labels=("angry",), subtitle="Go away." if i else None))
    return made


def ask(clips, tmp_path, engine=None, **options):
    engine = engine or FakeEngine(lambda request: ANSWER)
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        return predict(clips, engine, ledger, system="s", **options), engine


def test_six_frames_in_time_order_one_of_each_part(tmp_path, clips):
    _, engine = ask(clips[:1], tmp_path)
    numbers = [number_of(image) for image in engine.seen[0].images]
    assert [n // 10 for n in numbers] == [0, 1, 2, 3, 4, 5]


def test_frames_depend_on_seed_and_clip_not_on_the_other_clips(tmp_path, clips):
    together, engine = ask(clips, tmp_path / "a")
    alone, other = ask(clips[2:], tmp_path / "b")
    assert alone[0].info["pts_s"] == together[2].info["pts_s"]
    assert all(
        np.array_equal(a, b)
        for a, b in zip(engine.seen[2].images, other.seen[0].images, strict=True)
    )
    reseeded, _ = ask(clips[2:], tmp_path / "c", seed=1)
    assert reseeded[0].info["pts_s"] != alone[0].info["pts_s"]


def test_labels_text_and_provenance_are_kept(tmp_path, clips):
    rows, engine = ask(clips, tmp_path)
    assert rows[0].labels == ("angry", "sad")
    assert rows[0].description == ANSWER
    assert rows[0].status == "ok"
    assert rows[0].info["distinct_frames"] == 6
    assert "Go away." in engine.seen[1].prompt
    assert "picture are unknown." in engine.seen[0].prompt
    assert summary(rows) == {
        "clips": 3,
        "errors": 0,
        "parse": {"repaired": 3},
        "cut_off": 0,
        "labels_per_clip": 2.0,
    }


def test_a_clip_that_vanished_is_a_row_and_scores_nothing(tmp_path, clips):
    clips[1].video.unlink()
    rows, engine = ask(clips, tmp_path)
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert "cannot be read" in rows[1].error
    assert len(engine.seen) == 2
    assert labels_of(rows, gold_labels(clips))["c1"] == ()


def test_a_clip_deleted_midway_is_read_when_it_is_back(tmp_path, clips):
    content = clips[1].video.read_bytes()

    def delete_the_next(request):
        clips[1].video.unlink(missing_ok=True)
        return ANSWER

    rows, _ = ask(clips, tmp_path, FakeEngine(delete_the_next))
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert "gone or changed" in rows[1].error
    clips[1].video.write_bytes(content)
    rows, engine = ask(clips, tmp_path)
    assert [row.status for row in rows] == ["ok"] * 3
    assert len(engine.seen) == 1


def test_all_views_see_the_same_moments(tmp_path, clips):
    whole, _ = ask(clips, tmp_path)
    face, engine = ask(clips, tmp_path, view="face", face=FaceParams(size=64))
    assert [r.info["pts_s"] for r in whole] == [r.info["pts_s"] for r in face]
    assert all(image.shape == (64, 64, 3) for image in engine.seen[0].images)
    rate = detection_rate(face)
    assert (rate["frames"], rate["frames_with_face"], rate["clips_without_face"]) == (18, 0, 3)


def test_views_and_settings_have_answers_of_their_own(tmp_path, clips):
    engine = FakeEngine(lambda request: ANSWER)
    ask(clips[:1], tmp_path, engine)
    ask(clips[:1], tmp_path, engine)
    assert len(engine.seen) == 1
    ask(clips[:1], tmp_path, engine, frames=3)
    ask(clips[:1], tmp_path, engine, view="face", face=FaceParams(size=64))
    ask(clips[:1], tmp_path, engine, view="face", face=FaceParams(size=96))
    assert len(engine.seen) == 4


@pytest.mark.parametrize("view", ["face", "both"])
def test_views_with_faces_need_to_be_told_how(tmp_path, clips, view):
    with pytest.raises(ValueError, match="face parameters"):
        ask(clips, tmp_path, view=view)


def test_both_shows_a_crop_after_each_frame_that_has_a_face(tmp_path, clips, monkeypatch):
    class EveryOther:
        """Finds a face in every second frame it is shown."""

        def __init__(self):
            self.n = 0

        def detect(self, image):
            self.n += 1
            return [Face((8.0, 8.0, 40.0, 40.0), 1.0)] if self.n % 2 else []

    finder = EveryOther()
    monkeypatch.setattr(faces, "shared_detector", lambda params: finder)
    rows, engine = ask(clips[:1], tmp_path, view="both", face=FaceParams(size=64))
    whole, crop = (HEIGHT, WIDTH, 3), (64, 64, 3)
    assert [i.shape for i in engine.seen[0].images] == [whole, crop, whole] * 3
    assert rows[0].info["faces"]["found"] == 3
    assert detection_rate(rows)["rate"] == 0.5
    alone, _ = ask(clips[:1], tmp_path)
    assert alone[0].info["pts_s"] == rows[0].info["pts_s"]


def test_prediction_files_come_back(tmp_path, clips):
    rows, _ = ask(clips, tmp_path)
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    assert read_labels(file, gold_labels(clips)) == labels_of(rows, gold_labels(clips))
    file.write_text('{"name": "x"}\n')
    with pytest.raises(DataError, match="row 1: a prediction needs"):
        read_labels(file, ["x"])


def test_a_folder_of_ones_own_is_asked(tmp_path, monkeypatch, capsys):
    """No profile names it; its LoRA goes with it, and so do paths relative to the caller."""
    real, asked = profiles.base_params, []
    outputs = str(tmp_path / "outputs")
    monkeypatch.setattr(
        profiles, "base_params", lambda r, p: real(r, p).model_copy(update={"outputs": outputs})
    )

    def opened(model, **settings):
        asked.append((settings["name"], model.model, model.adapters))
        return FakeEngine(lambda request: ANSWER)

    monkeypatch.setattr("emolib.engines.open_engine", opened)
    mine = build_tiny("internvl", tmp_path / "mine")
    (tmp_path / "lora").mkdir()
    video = str(write_video(tmp_path / "c.mp4", 12))
    monkeypatch.chdir(tmp_path)
    out = ["--out", str(tmp_path / "out.jsonl")]
    assert main(["predict", video, "--model", "mine", "--adapter", "lora", *out]) == 0
    assert asked == [("mine", str(mine), (str(tmp_path / "lora"),))]
    [row] = map(json.loads, Path("out.jsonl").read_text(encoding="utf-8").splitlines())
    assert (row["system"], row["labels"]) == ("mine", ["angry", "sad"])
    asked.clear()
    assert main(["predict", video, "--model", "mine", "--system", "llava", *out]) == 0
    assert [name for name, *_ in asked] == ["llava", "mine"]
    capsys.readouterr()
    assert main(["predict", video, "--adapter", "lora", *out]) == 2
    assert "--adapter: is for --model" in capsys.readouterr().err
    assert main(["predict", video, "--model", "llava", *out]) == 2
    assert "say --system llava" in capsys.readouterr().err
    shutil.copytree(mine, tmp_path / "llava")  # called like a system of the profile
    assert main(["predict", video, "--model", "llava", *out]) == 0
    assert asked[-1][:2] == (str(tmp_path / "llava"),) * 2
    assert main(["predict", video, "--model", "nowhere", *out]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Asks about one clip with ``--model`` and more options; gives the exit code and the model."""
    real = profiles.base_params
    outputs = str(tmp_path / "outputs")
    monkeypatch.setattr(
        profiles, "base_params", lambda r, p: real(r, p).model_copy(update={"outputs": outputs})
    )
    opened = []

    def open_engine(model, **settings):
        opened.append(model)
        return FakeEngine(lambda request: ANSWER)

    video = str(write_video(tmp_path / "c.mp4", 12))
    folder = str(build_tiny("internvl", tmp_path / "mine"))

    def ask_own(*options, model=folder, fake=True):
        with monkeypatch.context() as patch:
            if fake:
                patch.setattr("emolib.engines.open_engine", open_engine)
            code = main(
                ["predict", video, "--model", model, "--out", str(tmp_path / "o.jsonl"), *options]
            )
        return code, opened.pop() if opened else None

    return ask_own


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"engine": "transformers", "batch_size": 4, "allow_download": False}),
        (["--batch-size", "8", "--device", "cpu"], {"batch_size": 8, "device": "cpu"}),
        (["--dtype", "float16"], {"dtype": "float16"}),
        (["--engine", "vllm", "--batch-size", "32"], {"engine": "vllm", "concurrency": 32}),
        (["--set", "decoding.max_new_tokens=64"], {"decoding": Decoding(max_new_tokens=64)}),
        (["--set", "max_tiles=2", "--set", "attention=eager"], {"max_tiles": 2}),
    ],
)
def test_options_of_the_own_model_reach_its_engine(own, options, expected):
    code, model = own(*options)
    assert code == 0
    assert {key: getattr(model, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "--batch-size: batch_size = 0"),
        (["--set", "max_tilez=2"], "did you mean 'max_tiles'"),
        (["--set", "max_tiles=two"], "--set max_tiles: max_tiles = 'two'"),
        (["--set", "max_tiles"], "give KEY=VALUE"),
        (["--set", "stop=["], "is not YAML"),
        (["--base-url", "http://x/v1"], "--base-url: is for --engine server"),
        (["--engine", "server"], "give its address with --base-url"),
        (["--engine", "server", "--base-url", "http://x/v1", "--download"], "--download: is not"),
        (["--engine", "vllm", "--load-in-4bit"], "load_in_4bit: is read by engine transformers"),
    ],
)
def test_wrong_options_of_the_own_model_are_explained(own, options, message, capsys):
    assert own(*options) == (2, None)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--download"], ["--device", "cpu"], ["--batch-size", "0"], ["--set", "x=1"]]
)
def test_options_of_the_own_model_need_one(tmp_path, options, capsys):
    assert main(["predict", str(tmp_path), *options]) == 2
    assert f"{options[0]}: is for --model" in capsys.readouterr().err


def test_a_model_behind_a_server_is_asked(own, tmp_path, capsys):
    with FakeServer(refuse=("max_tokens", "temperature")) as server:
        behind = ["--engine", "server", "--base-url", server.url]
        assert own(*behind, model="fake", fake=False)[0] == 2
        assert "set max_tokens_key: max_completion_tokens" in capsys.readouterr().err
        behind += [
            "--set",
            "max_tokens_key=max_completion_tokens",
            "--set",
            "send_temperature=false",
        ]
        assert own(*behind, model="fake", fake=False)[0] == 0
    [row] = map(json.loads, (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["system"] == "fake"
    assert row["description"].startswith("answer")


def test_four_bits_without_bitsandbytes_name_the_extra(own, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else find(n, *a)
    )
    assert own("--load-in-4bit", fake=False)[0] == 2
    assert "pip install 'emolib[quant]'" in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="needs bitsandbytes: pip install -e '.[quant]' -c constraints.txt",
)
def test_four_bits_are_loaded_and_answer(own, tmp_path):
    import torch

    bits = ["--load-in-4bit", "--device", "cpu", "--set", "decoding.max_new_tokens=4"]
    assert own(*bits, model="nano:internvl", fake=False)[0] == 0
    [row] = map(json.loads, (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["status"] == "ok"
    assert row["model"]["load_in_4bit"] is True
    params = ModelParams(model="nano:internvl", load_in_4bit=True, device="cpu")
    model, _ = load_model(params, find_model(params), "float32")
    linear = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert linear
    assert all(m.weight.dtype == torch.uint8 for m in linear)


@pytest.mark.shared
def test_real_clips_give_a_row_each(tmp_path, monkeypatch, capsys):
    """People in front of a camera, with and without sound, and two broken files among them."""
    folder = tmp_path / "clips"
    shutil.copytree(shared("data/clips/video"), folder)
    good = len(list(folder.iterdir()))
    (folder / "empty.mp4").write_bytes(b"")
    whole = next(folder.glob("mead_video_sad.mp4")).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    real = profiles.base_params
    outputs = str(tmp_path / "outputs")
    monkeypatch.setattr(
        profiles, "base_params", lambda r, p: real(r, p).model_copy(update={"outputs": outputs})
    )
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(folder), "--out", str(out)]) == 1
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == good + 2
    assert {row["name"] for row in rows if row["error"]} == {"empty", "cut"}
    assert all(row["description"] for row in rows if not row["error"])
    assert f"{good + 2} rows, 2 with an error" in capsys.readouterr().out
    assert Path(outputs, "demo", "ledger", "predict.jsonl").is_file()
