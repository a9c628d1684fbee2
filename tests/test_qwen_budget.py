"""Pixel budgets of Qwen's models: what is counted is what their processors and templates make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emolib import prompts
from emolib.baselines.run import run_systems
from emolib.budget import FULL_HD, context_of, describe, fit
from emolib.datasets.clip import Clip
from emolib.engines import Request, open_engine
from emolib.engines.swift_setup import prepare_processor
from emolib.errors import DataError, EngineError
from emolib.ledger import Ledger
from emolib.models.counting import open_counter
from emolib.models.internvl.budget import TokenBudgetError
from emolib.models.qwen import QwenCounter, Scaling, scaling_of
from emolib.params import Decoding, ModelParams
from emolib.params.baselines import Recipe
from emolib.params.profiles import resolve
from emolib.predict import predict, zero_shot_prompt
from emolib.training.rows import check_budget
from tests.media_files import write_video
from tests.tiny_models import encoded_length, qwen2_5_vl, qwen3_vl
from tests.tiny_omni import qwen2_5_omni, qwen3_omni

ROOT = Path(__file__).resolve().parents[1]
PORTRAIT = (1080, 1920)
BUILDERS = {
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen2_5_omni": qwen2_5_omni,
    "qwen3_omni": qwen3_omni,
}
MARKED = zero_shot_prompt(
    Clip("a", Path("a"), subtitle="我很好, <image> <|im_end|> <|image_pad|> it's 5 o'clock.")
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind, with the image limits of the published folders instead of the class's."""
    home = tmp_path_factory.mktemp("qwen")
    made = {name: build(home / name) for name, build in BUILDERS.items()}
    for folder in made.values():
        file = folder / "processor_config.json"
        config = json.loads(file.read_text())
        images = config["image_processor"]
        side = images["patch_size"] * images["merge_size"]
        images["size"] = {"shortest_edge": 4 * side**2, "longest_edge": 16_384 * side**2}
        file.write_text(json.dumps(config))
    return made


def params(folder: Path, **changes: Any) -> ModelParams:
    base = ModelParams(model=str(folder), device="cpu", decoding=Decoding(max_new_tokens=1))
    return base.model_copy(update=changes)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("max_pixels", [0, 200_000])
def test_counts_are_what_the_model_is_given(
    kind: str, max_pixels: int, folders: dict[str, Path]
) -> None:
    counter = open_counter(folders[kind])
    assert isinstance(counter, QwenCounter)
    model = params(folders[kind], max_pixels=max_pixels, max_length=9000)
    with open_engine(model, name="x") as engine:
        for size in (FULL_HD, PORTRAIT, (320, 240), (20, 30)):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            for system in ("", "Be brief."):
                turns = [{"role": "system", "content": system}] if system else []
                turns.append({"role": "user", "content": MARKED})
                counted = counter.other(turns, 2) + counter.images.image_tokens(
                    [size] * 2, max_pixels
                )
                request = Request("1", MARKED, (image, image), system=system or None)
                assert encoded_length(engine, request) == counted
        text = Request("1", "Hello.")
        assert encoded_length(engine, text) == counter.other(
            [{"role": "user", "content": "Hello."}], 0
        )


@pytest.mark.parametrize("kind", ["qwen2_5_omni", "qwen3_omni"])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.3, 5.99])
def test_audio_is_counted_at_its_longest(
    kind: str, seconds: float, folders: dict[str, Path]
) -> None:
    counter = open_counter(folders[kind])
    assert isinstance(counter, QwenCounter)
    audio = np.zeros(int(16_000 * seconds), np.float32)
    with open_engine(params(folders[kind]), name="x") as engine:
        made = encoded_length(engine, Request("1", "Hello.", audio=(audio,)))
    other = counter.other([{"role": "user", "content": "Hello."}], 0)
    assert other < made <= other + counter.audio(seconds) <= made + 15


def test_models_without_audio_count_none(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="takes no audio"):
        QwenCounter(folders["qwen3_vl"]).audio(1.0)


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_models_own_processor_counts_the_same(kind: str, folders: dict[str, Path]) -> None:
    """transformers' processor, as the model's authors use it, with ``max_pixels`` set."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folders[kind])
    scaling = scaling_of(folders[kind])
    for max_pixels in (0, 200_000, 1_048_576):
        images = prepare_processor(processor, max_pixels=max_pixels).image_processor
        for size in (FULL_HD, PORTRAIT, (640, 480)):
            made = images(images=[Image.new("RGB", size)], return_tensors="pt")["image_grid_thw"]
            assert made.prod() // images.merge_size**2 == scaling.tokens(size, max_pixels)
    assert scaling.tokens(FULL_HD) == {28: 2691, 32: 2040}[scaling.factor]


@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    factor=st.sampled_from([28, 32]),
    most=st.integers(4, 20_000),
)
@settings(max_examples=300)
def test_scaling_is_qwens_rule(width: int, height: int, factor: int, most: int) -> None:
    from qwen_vl_utils.vision_process import smart_resize

    scaling = Scaling(factor, 16_384 * factor**2)
    pixels = most * factor**2 + most % 7  # not only multiples
    try:
        rows, columns = smart_resize(height, width, factor, 4 * factor**2, pixels)
    except ValueError:
        rows = columns = 0
    if rows * columns:
        assert scaling.tokens((width, height), pixels) == rows * columns // factor**2
    else:
        with pytest.raises(DataError, match="too long"):
            scaling.tokens((width, height), pixels)


@given(
    sizes=st.lists(
        st.tuples(st.integers(200, 4000), st.integers(200, 4000)), min_size=1, max_size=8
    ),
    limit=st.integers(50, 40_000),
)
@settings(max_examples=200)
def test_the_most_pixels_that_fit_are_found(sizes: list[tuple[int, int]], limit: int) -> None:
    scaling = Scaling(28, 16_384 * 28**2)
    try:
        top, tokens = scaling.fit(sizes, 40, limit)
    except TokenBudgetError:
        assert 40 + len(sizes) > limit or limit < 40 + 25 * len(sizes)
        return
    assert tokens == 40 + scaling.image_tokens(sizes, top) <= limit
    if top < scaling.own:
        assert 40 + scaling.image_tokens(sizes, top + 28**2) > limit
        with pytest.raises(TokenBudgetError, match=f"max_pixels = {top} fits with {tokens}"):
            scaling.check(sizes, 40, limit)


@pytest.mark.parametrize("size", [FULL_HD, PORTRAIT])
def test_full_hd_clips_are_answered(
    size: tuple[int, int], folders: dict[str, Path], tmp_path: Path
) -> None:
    """Without a budget every clip is an error row; with it all are answered, and none is cut."""
    clips = [Clip("a", write_video(tmp_path / "a.mp4", 7, size=size), subtitle="I am fine.")]
    model = params(folders["qwen3_vl"], max_length=1200)
    room = fit(model, clips, frames=6)
    assert 0 < room.model.max_pixels < FULL_HD[0] * FULL_HD[1]
    assert room.longest <= 1200
    assert f"max_pixels {room.top:,} (chosen to fit)" in room.note
    assert room.to_json()["max_pixels"] == room.top
    got = {}
    for name, one in (("before", model), ("after", room.model)):
        with open_engine(one, name=name) as engine, Ledger(tmp_path / name) as ledger:
            [got[name]] = predict(clips, engine, ledger, system=name, frames=6)
    assert got["before"].error is not None
    assert "prompt too long" in got["before"].error
    assert got["after"].status == "ok"
    given = room.model.model_copy(update={"max_pixels": room.top * 2})
    with pytest.raises(TokenBudgetError, match=rf"a: .*max_pixels = {room.top} fits"):
        fit(given, clips, frames=6)


def test_baselines_count_frames_with_audio(folders: dict[str, Path], tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 7, size=FULL_HD)
    recipe = Recipe(
        title="Omni",
        inputs=("frames", "audio", "words"),
        model=params(folders["qwen2_5_omni"], max_length=1000),
        seconds=6.0,
    )
    with Ledger(tmp_path / "ledger") as ledger:
        ran = run_systems([Clip("a", video, subtitle="Hi.")], {"omni": recipe}, {}, ledger)
    assert not ran.absent
    [row] = ran.predictions["omni"]
    assert row.status == "ok"
    assert row.model["max_pixels"] > 0


def test_training_rows_are_counted_before_training(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from swift.template import get_template

    from emolib.engines.swift_setup import import_swift

    import_swift()
    from swift.model import get_processor

    Image.new("RGB", FULL_HD).save(tmp_path / "wide.png")
    rows = [
        [("user", "<image>Who?"), ("assistant", "She.")],
        [("user", "Who?"), ("assistant", "She."), ("user", "Why?"), ("assistant", "Well, well.")],
        [("system", "Be brief."), ("user", "Look: <image> Who?"), ("assistant", "She.\nHe.")],
    ]
    file = tmp_path / "rows.jsonl"
    made = [
        {
            "messages": [{"role": role, "content": text} for role, text in row],
            "images": [str(tmp_path / "wide.png")],
        }
        for row in rows
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    for kind in ("qwen2_5_vl", "qwen3_vl"):
        folder = folders[kind]
        counter = open_counter(folder)
        assert counter is not None
        processor = prepare_processor(
            get_processor(str(folder), model_type=kind), max_pixels=300_000
        )
        template = get_template(processor, template_type=kind)
        template.set_mode("train")
        lengths = [len(template.encode(dict(row))["input_ids"]) for row in made]
        assert lengths == [
            sample.other + counter.images.image_tokens(sample.sizes, 300_000)
            for sample in counter.samples(file)
        ]
        model = params(folder, max_pixels=300_000)
        assert check_budget(folder, file, max(lengths), model)
        with pytest.raises(TokenBudgetError, match=r"line \d: .*max_pixels = \d+ fits"):
            check_budget(folder, file, max(lengths) - 1, model)


def test_other_models_say_that_they_take_no_pixels(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    model = ModelParams(model="tiny:llava", device="cpu", max_pixels=100_000)
    with pytest.raises(EngineError, match="does not scale images to a number of pixels"):
        open_engine(model, name="x", cache=tmp_path)
    other = tmp_path / "MiMo-VL"
    other.symlink_to(folders["qwen2_5_vl"])
    assert open_counter(other) is None, "another template under the same architecture"


def test_doctor_tells_what_1080p_costs(folders: dict[str, Path]) -> None:
    folder = folders["qwen3_vl"]
    line = describe(params(folder, max_length=8192, max_pixels=1_048_576), folder)
    assert line.startswith("6 1080p frames at max_pixels 1,048,576: 6,")
    assert context_of(folders["qwen3_omni"]) == 4096
    with pytest.raises(TokenBudgetError, match="12240 of 6 images"):
        describe(params(folder, max_length=8192, max_pixels=16_384 * 32**2), folder)


def test_every_recipe_of_h200_fits_full_hd_and_portrait_clips() -> None:
    """Six frames, 30 s of audio and some 400 words; factors are those of the published folders."""
    factors = {"Qwen3-VL": 32, "Qwen2.5-Omni": 28, "Qwen3-Omni": 32}
    stage: Any = resolve(ROOT, "h200", "08_baselines")
    seen = set()
    for name, recipe in stage.chosen().items():
        model = recipe.answering(stage.models)
        found = [f for part, f in factors.items() if model and part in model.model]
        if not found:
            continue
        assert model is not None
        scaling = Scaling(found[0], 16_384 * found[0] ** 2)
        audio = 25 * int(recipe.seconds) + 2 if "audio" in recipe.inputs else 0
        words = len(zero_shot_prompt(Clip("a", Path("a"), subtitle="word " * 400)).split())
        for size in (FULL_HD, PORTRAIT, (3840, 2160), (1440, 1080), (1080, 1080)):
            scaling.check(
                [size] * recipe.frames, 2 * words + audio, model.max_length, model.max_pixels
            )
        seen.add(name)
    assert seen == {"qwen3_vl_8b", "qwen2_5_omni_7b", "qwen3_omni_30b"}
    assert prompts.ZERO_SHOT.sha
