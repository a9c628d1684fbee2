"""``emolib doctor``: what is missing is named with its commands; exit 0 means all can run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from emolib import assets
from emolib.__main__ import main
from emolib.cli import survey as looking
from emolib.cli.survey import Machine, ask_server, deepspeed_of, gpu_problem, recommended, survey
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import ModelParams
from emolib.params.stages import AffectGPTSft, InternVLLora, StageParams
from emolib.params.training import LoraParams
from tests.fake_server import FakeServer

REPO = Path(__file__).resolve().parents[1]
EIGHT = [["NVIDIA A800 80GB", 80]] * 8


def make(at: Path, asset: assets.Asset | None) -> None:
    """Put what an asset must hold where it is looked for; the files are empty of meaning."""
    if asset is None or not asset.holds:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text("x")
        return
    at.mkdir(parents=True, exist_ok=True)
    for part in asset.holds:
        name = {"weights": "model.safetensors", "tokenizer": "tokenizer.json"}.get(part, part)
        name = "processor_config.json" if name == "processor" else name.split("|")[0]
        if name.endswith("/"):
            (at / name).mkdir()
            (at / name / "one.mp4").write_text("x")
        elif name == "model.safetensors":
            save_file({"a": np.zeros(4, dtype=np.float32)}, at / name)
        else:
            (at / name).write_text("{}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A clone with everything that profile paper names, on a machine of eight GPUs."""

    def built(profile: str = "paper", machine: dict[str, object] | None = None) -> Path:
        shutil.copytree(REPO / "params", tmp_path / "params")
        shutil.copytree(REPO / "notebooks", tmp_path / "notebooks")
        for asset in assets.assets_of(REPO, profile):
            if asset.at:
                make(tmp_path / asset.at, asset)
        for use in assets.uses(REPO, profile):
            if use.model is not None and use.model.launch:
                program = tmp_path / use.model.launch[0]
                program.parent.mkdir(parents=True, exist_ok=True)
                program.write_text("#!/bin/sh\n")
                program.chmod(0o755)
            elif use.asset is None:
                (tmp_path / use.at).mkdir(parents=True, exist_ok=True)
                (tmp_path / use.at / "clip.mp4").write_text("x")
        told = {"system": "Linux", "cores": 64, "memory_gb": 512, "free_gb": 900, "gpus": EIGHT}
        marker = {"machine": told | (machine or {})}
        (tmp_path / assets.STAND_IN).write_text(json.dumps(marker))
        monkeypatch.setenv("EMOLIB_ROOT", str(tmp_path))
        monkeypatch.setattr(looking, "installed", lambda package: True)
        monkeypatch.setattr(looking._Looked, "unreadable", lambda self, params: [])
        monkeypatch.setattr("emolib.cli.doctor._data", lambda root, base: [])
        monkeypatch.setattr("emolib.cli.doctor._budgets", lambda root, base: [])
        return tmp_path

    return built


@pytest.mark.parametrize("profile", ["paper", "h200", "affectgpt2025", "laptop"])
def test_with_everything_there_every_stage_can_run(
    profile: str, project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    project(profile)
    code = main(["doctor", profile])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "To get" not in printed
    assert f"emolib run {profile}" in printed
    assert "simulated for a rehearsal" in printed


def test_each_missing_thing_stops_the_stages_that_name_it(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = project()
    for use in assets.uses(REPO, "paper"):
        at = root / (use.model.launch[0] if use.model and use.model.launch else use.at)
        if not use.required or not at.exists():
            continue
        at.rename(root / "away")
        assert main(["doctor", "paper", "--json"]) == 1, use
        told = json.loads(capsys.readouterr().out)
        (root / "away").rename(at)
        name = use.asset.name if use.asset else use.at
        assert name in told["stages"][use.stage]["lacks"], use
        item = next(i for i in told["items"] if i["name"] == name and i["at"] == use.at)
        assert item["commands"] or item["note"]
        assert use.stage[:2] in item["stages"]
    assert main(["doctor", "paper"]) == 0


def test_a_stage_waits_for_the_one_it_reads_unless_that_has_run(
    project: Callable[..., Path],
) -> None:
    root = project()
    shutil.rmtree(root / "data/ch-simsv2s")
    states = {s.stage.name: s for s in survey(root, "paper").stages}
    assert not states["01_data_generation"].ready
    assert states["02_caption_filtering"].lacks == ["stage 01 before it"]
    assert states["04_affectgpt_sft"].ready
    done = root / "outputs/paper/01_data_generation/20260101T000000Z-0000000"
    done.mkdir(parents=True)
    (done / "result.json").write_text("{}")
    states = {s.stage.name: s for s in survey(root, "paper").stages}
    assert states["02_caption_filtering"].ready


def test_what_is_converted_needs_its_source_only_while_it_is_not_there(
    project: Callable[..., Path],
) -> None:
    root = project()
    shutil.rmtree(root / "weights/InternVL-Chat-V1-5")
    assert survey(root, "paper").ready
    shutil.rmtree(root / "weights/InternVL-Chat-V1-5-native")
    names = [item.name for item in survey(root, "paper").to_get]
    assert names == ["InternVL-Chat-V1-5", "InternVL-Chat-V1-5-native"]
    # Weights behind a server are read as long as it runs.
    shutil.rmtree(root / "weights/Qwen-VL-Chat")
    found = survey(root, "paper")
    assert [item.name for item in found.to_get][:2] == ["Qwen-VL-Chat", "Qwen-VL-Chat-server"]
    commands = [command for item in found.to_get for command in item.commands]
    assert any(c.startswith("emolib convert internvl") for c in commands)
    assert "hf download Qwen/Qwen-VL-Chat --local-dir weights/Qwen-VL-Chat" in commands


def test_stand_ins_do_not_pass_outside_a_rehearsal(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = project("laptop")
    (root / "weights/InternVL3-1B-hf" / assets.STAND_IN).write_text("{}")
    assert main(["doctor", "laptop"]) == 0
    (root / assets.STAND_IN).unlink()
    assert main(["doctor", "laptop"]) == 1
    assert "stand-in: made for a rehearsal" in capsys.readouterr().out


def test_memory_and_hours_are_estimated_for_the_machine(project: Callable[..., Path]) -> None:
    root = project("paper", {"gpus": [["NVIDIA A800 40GB", 40]] * 8})
    states = {s.stage.name: s for s in survey(root, "paper").stages}
    assert states["05_face_crop_ablation"].lacks == ["54 GB memory (40 here)"]
    assert states["06_discriminative_model"].ready
    hours = states["05_face_crop_ablation"].hours
    assert hours is not None
    marker = json.loads((root / assets.STAND_IN).read_text())
    for name, expected in (("NVIDIA H200", hours * 312 / 989), ("a GPU of tomorrow", None)):
        marker["machine"]["gpus"] = [[name, 141]]
        (root / assets.STAND_IN).write_text(json.dumps(marker))
        states = {s.stage.name: s for s in survey(root, "paper").stages}
        assert states["05_face_crop_ablation"].ready
        assert states["05_face_crop_ablation"].hours == pytest.approx(expected)


def test_gpus_and_disk_are_counted(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = project("paper", {"gpus": EIGHT[:3], "free_gb": 100})
    states = {s.stage.name: s for s in survey(root, "paper").stages}
    assert states["03_internvl_lora"].lacks == ["8 GPUs"]
    assert states["04_affectgpt_sft"].lacks == ["4 GPUs"]
    assert states["05_face_crop_ablation"].ready
    assert main(["doctor", "paper"]) == 1
    assert "a machine with 8 GPUs; torch can use 3 here" in capsys.readouterr().out
    shutil.rmtree(root / "weights/InternVL-Chat-V1-5")
    shutil.rmtree(root / "weights/InternVL-Chat-V1-5-native")
    found = survey(root, "paper")
    assert found.missing_bytes == 48_000_000_000 + 51_028_372_224
    assert found.unknown_sizes == 0
    assert any(step.startswith("free 9 GB") for step in found.todo)


@pytest.mark.parametrize(
    ("installed", "newest", "built", "told"),
    [
        (0, "", "13.0", ""),
        (1, "12.8", None, "built without CUDA"),
        (2, "12.8", "13.0", "supports CUDA 12.8, torch is built for CUDA 13.0: update"),
        (2, "13.1", "13.0", "finds no GPU"),
    ],
)
def test_why_torch_sees_no_gpu(installed: int, newest: str, built: str | None, told: str) -> None:
    found = gpu_problem(installed, "570.1", newest, built)
    assert told in found
    assert bool(found) == bool(told)


def test_a_profile_is_recommended_for_the_machine() -> None:
    none = Machine("Linux", 4, 16, 100)
    one = replace(none, gpus=(("H200", 139.0),), usable=1)
    assert recommended(none)[0] == "laptop"
    assert recommended(one)[0] == "h200"
    assert recommended(replace(one, gpus=(("RTX", 12.0),)))[0] == "laptop"
    assert recommended(replace(one, usable=0, problem="old driver"))[0] == "laptop"
    assert recommended(replace(one, gpus=(("A800", 79.0),) * 8, usable=8))[0] == "paper"


def test_servers_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer() as server:
        known = ModelParams(engine="server", model="fake", base_url=server.url)
        assert ask_server(known).word == "there"
        other = ask_server(known.model_copy(update={"model": "no-such-model"}))
        assert other.word == "missing"
        assert "not no-such-model" in other.detail
        keyed = known.model_copy(update={"api_key_env": "NO_SUCH_KEY"})
        assert ask_server(keyed).detail == "no key: set NO_SUCH_KEY"
    gone = ask_server(known)
    assert gone.word == "missing"
    assert f"nothing answers at {known.base_url}" in gone.detail
    started = known.model_copy(update={"launch": (sys.executable, "serve")})
    assert ask_server(started).word == "there"
    lost = known.model_copy(update={"launch": ("no-such-vllm", "serve")})
    assert "no program no-such-vllm" in ask_server(lost).detail
    assert ask_server(known.model_copy(update={"base_url": "not an address"})).word == "missing"


def test_hub_ids_are_looked_for_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ModelParams(model="OpenGVLab/InternVL3-1B-hf")
    (use,) = assets._model("03", "models.m", named, required=True)
    assert use.asset is not None
    assert use.asset.commands() == ["hf download OpenGVLab/InternVL3-1B-hf"]
    monkeypatch.setattr("emolib.engines.hub._cached", lambda name: None)
    assert looking._state(tmp_path, use).detail == "not in the Hugging Face cache"
    fetched = replace(use, model=named.model_copy(update={"allow_download": True}))
    assert looking._state(tmp_path, fetched).word == "there"
    make(tmp_path / "snapshot", use.asset)
    (tmp_path / "snapshot/config.json").write_text("{}")
    monkeypatch.setattr("emolib.engines.hub._cached", lambda name: tmp_path / "snapshot")
    assert looking._state(tmp_path, use).detail == "in the Hugging Face cache"


def test_packages_that_a_stage_asks_for(
    project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    monkeypatch.setattr(looking, "installed", lambda package: package != "deepspeed")
    found = survey(root, "paper")
    assert not found.ready
    assert "pip install deepspeed (lora.deepspeed = zero3)" in found.todo
    sft = AffectGPTSft.model_construct(recipe=SftParams(deepspeed="zero2"))
    lora = InternVLLora.model_construct(lora=LoraParams(deepspeed="zero3"))
    assert deepspeed_of(sft) == [("recipe.deepspeed", "zero2")]
    assert deepspeed_of(lora) == [("lora.deepspeed", "zero3")]
    assert deepspeed_of(InternVLLora.model_construct(lora=None)) == []
    assert deepspeed_of(StageParams.model_construct()) == []


def test_a_fresh_clone_lists_what_to_get(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "paper"]) == 1
    printed = capsys.readouterr().out
    assert "clips" not in next(li for li in printed.splitlines() if li.startswith("02_caption"))
    for said in (
        "emolib convert internvl weights/InternVL-Chat-V1-5 weights/InternVL-Chat-V1-5-native",
        "hf download MERChallenge/MER2024 --repo-type dataset --local-dir data/mer2024",
        "first: sign the authors' agreement",
        "licence: CC BY-NC 4.0",
        "a machine with 8 GPUs",
        "runs without",
        "SALMONN-server",
        "4,608 image tokens of 8,192",
    ):
        assert said in printed, said


def test_the_demo_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "demo"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "nano:internvl" in printed
    assert "03_internvl_lora" in printed


def test_clips_that_cannot_be_read_stop_the_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params/p", "notebooks", "data/mer/video-labeled"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(REPO / "notebooks/00_data_check.ipynb", tmp_path / "notebooks")
    (tmp_path / "params/p/_base.yaml").write_text("data: {kind: mer2024-ov, root: data/mer}\n")
    (tmp_path / "params/p/00_data_check.yaml").write_text("profile: p\n")
    (tmp_path / "data/mer/video-labeled/one.mp4").write_text("x")
    (tmp_path / "data/mer/label-transcription.csv").write_text("name,chinese\n")
    (tmp_path / "data/mer/check-openset.csv").write_text("nothing,of,this\n")
    monkeypatch.chdir(tmp_path)
    found = survey(tmp_path, "p")
    assert [s.lacks for s in found.stages if not s.absent] == [["clips"]]
    assert any(step.startswith("emolib datasets check mer2024-ov data/mer") for step in found.todo)
