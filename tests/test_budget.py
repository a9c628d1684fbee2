"""What prompts cost, before any weight is read, equals what the model is then given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emolib.budget import context_of, describe, fit
from emolib.datasets.clip import Clip
from emolib.engines import Request, answer_all, open_engine
from emolib.engines.tiny import tiny_folder
from emolib.media.video import sample_frames
from emolib.models.internvl.budget import TokenBudgetError
from emolib.models.internvl.convert import convert
from emolib.params import Decoding, ModelParams
from emolib.params.media import FaceParams
from emolib.params.training import LoraParams
from emolib.predict import zero_shot_prompt
from emolib.rehearsal.internvl_files import write_source
from emolib.training import train_lora
from tests.media_files import write_video


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("budget")


@pytest.fixture(scope="module")
def models(home: Path) -> dict[str, Path]:
    """A converted folder, an -hf folder that cuts tiles, and another family."""
    hf = home / "hf"
    shutil.copytree(tiny_folder("internvl", home / "tiny"), hf)
    file = hf / "processor_config.json"
    config = json.loads(file.read_text())
    config["image_processor"]["max_patches"] = 12
    file.write_text(json.dumps(config))
    convert(write_source(home / "source"), home / "converted", "v1.5")
    return {
        "hf": hf,
        "converted": home / "converted",
        "llava": tiny_folder("llava", home / "tiny"),
    }


@pytest.fixture(scope="module")
def clips(home: Path) -> list[Clip]:
    wide = write_video(home / "wide.mp4", 12, size=(512, 64))
    small = write_video(home / "small.mp4", 12)
    (home / "broken.mp4").write_bytes(b"no video")
    return [
        Clip("small", small, subtitle="我很好, <image> <|im_end|> it's 5 o'clock."),
        Clip("wide", wide),
        Clip("broken", home / "broken.mp4"),
    ]


def params(folder: Path, **changes: Any) -> ModelParams:
    base = ModelParams(model=str(folder), device="cpu", decoding=Decoding(max_new_tokens=1))
    return base.model_copy(update=changes)


@pytest.mark.parametrize("family", ["hf", "converted"])
@pytest.mark.parametrize("max_tiles", [0, 3])
def test_counts_are_what_the_model_is_given(
    family: str, max_tiles: int, models: dict[str, Path], clips: list[Clip]
) -> None:
    model = params(models[family], max_length=9000, max_tiles=max_tiles)
    for clip in clips[:2]:
        room = fit(model, [clip], frames=3)
        assert room.model == model, "all fits as it is"
        images = tuple(f.image for f in sample_frames(clip.video, 3, name=clip.name).frames)
        with open_engine(room.model, name="x") as engine:
            [reply] = answer_all(engine, [Request("1", zero_shot_prompt(clip), images)])
        assert reply.prompt_tokens == room.longest
        assert f"{room.longest:,} of 9,000 tokens ({clip.name})" in room.note


@pytest.mark.parametrize("family", ["hf", "converted"])
def test_the_finest_tiling_that_fits_is_chosen(
    family: str, models: dict[str, Path], clips: list[Clip]
) -> None:
    free = fit(params(models[family], max_length=9000), clips, frames=6)
    assert (free.top, free.sample) == (12, "wide")
    limit = free.longest - 1
    room = fit(params(models[family], max_length=limit), clips, frames=6)
    assert 1 <= room.top < 12
    assert room.model.max_tiles == room.top
    assert room.longest <= limit
    assert "chosen to fit" in room.note
    finer = params(models[family], max_length=limit, max_tiles=room.top + 1)
    with pytest.raises(TokenBudgetError, match=rf"wide: .*max_num = {room.top} fits"):
        fit(finer, clips, frames=6)
    with pytest.raises(TokenBudgetError, match=r"(small|wide): .*take fewer images"):
        fit(params(models[family], max_length=60), clips, frames=6)


def test_face_crops_have_the_crops_size(models: dict[str, Path], clips: list[Clip]) -> None:
    model = params(models["converted"], max_length=9000)
    room = fit(model, clips, frames=6, view="face", face=FaceParams(size=56))
    assert room.longest < fit(model, clips, frames=6).longest
    assert "(small)" in room.note, "all crops are alike, so words decide"
    with pytest.raises(ValueError, match="face parameters"):
        fit(model, clips, frames=6, view="face")


def test_a_frame_and_its_crop_are_counted_together(
    models: dict[str, Path], clips: list[Clip]
) -> None:
    crop = FaceParams(size=56)
    model = params(models["converted"], max_length=9000)
    whole = fit(model, clips, frames=6)
    both = fit(model, clips, frames=6, view="both", face=crop)
    one = params(models["converted"], max_length=whole.longest, max_tiles=whole.top)
    assert both.longest > whole.longest
    with pytest.raises(TokenBudgetError, match="max_tiles"):
        fit(one, clips, frames=6, view="both", face=crop)
    lowered = fit(one, clips, frames=6, view="both", face=crop, ceiling=True)
    assert 0 < lowered.model.max_tiles < whole.top
    assert lowered.longest <= whole.longest
    assert "chosen to fit" in lowered.note
    roomy = one.model_copy(update={"max_length": 9000, "max_tiles": 2})
    assert fit(roomy, clips, frames=6, view="both", face=crop, ceiling=True).model == roomy


def _rows(folder: Path) -> Path:
    Image.new("RGB", (560, 56)).save(folder / "wide.png")
    row = {
        "messages": [
            {"role": "user", "content": "<image>Who?"},
            {"role": "assistant", "content": "She."},
        ],
        "images": [str(folder / "wide.png")],
    }
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return file


def test_one_tiling_for_training_and_prediction(
    models: dict[str, Path], clips: list[Clip], tmp_path: Path
) -> None:
    rows = _rows(tmp_path)
    model = params(models["converted"], max_length=9000)
    free = fit(model, clips, frames=6, rows=rows, max_length=9000)
    assert free.top == 12
    assert "longest training row" in free.note
    tight = fit(model, clips, frames=6, rows=rows, max_length=80)
    assert tight.top < 12
    assert tight.model.max_tiles == tight.top
    with pytest.raises(TokenBudgetError, match="line 1"):
        fit(model, clips, frames=6, rows=rows, max_length=20)


def test_training_does_not_begin_with_a_row_that_is_too_long(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a process was started"))
    rows = _rows(tmp_path)
    lora = LoraParams(max_length=80)
    with pytest.raises(TokenBudgetError, match=r"rows.jsonl, line 1: .*max_num = \d+ fits"):
        train_lora(params(models["converted"]), lora, rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (ModelParams(engine="server", model="m", base_url="http://127.0.0.1:1/v1"), "server"),
        ("llava", "only InternVL"),
    ],
)
def test_what_is_not_counted_says_so(
    model: Any, why: str, models: dict[str, Path], clips: list[Clip]
) -> None:
    asked = model if isinstance(model, ModelParams) else params(models[model])
    room = fit(asked, clips, frames=6)
    assert room.model is asked
    assert room.longest == -1
    assert why in room.note


def test_doctors_line(models: dict[str, Path]) -> None:
    line = describe(params(models["converted"], max_length=8192, max_tiles=4), models["converted"])
    assert line.startswith("6 1080p frames at max_tiles 4: ")
    assert line.endswith(" tokens of 8,192")
    context = context_of(models["converted"])
    assert line.replace("8,192", f"{context:,}") == describe(
        params(models["converted"], max_tiles=4), models["converted"]
    )
    away = describe(ModelParams(model="x", max_length=8192, max_tiles=4), None)
    assert "6 1080p frames at max_tiles 4: 4,608 image tokens of 8,192" in away
    assert describe(ModelParams(model="x"), None) == ""
    assert describe(params(models["llava"]), models["llava"]) == ""
    with pytest.raises(TokenBudgetError):
        describe(params(models["converted"], max_length=99), models["converted"])
