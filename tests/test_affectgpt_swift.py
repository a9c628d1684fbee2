"""AffectGPT through ms-swift: the same rows, the same losses, only the branches trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("swift")

from safetensors.torch import load_file  # noqa: E402

from emolib.engines.swift_setup import environment, import_swift  # noqa: E402
from emolib.errors import DataError  # noqa: E402
from emolib.hashing import sha_file  # noqa: E402
from emolib.models.affectgpt import AffectGPTForConditionalGeneration  # noqa: E402
from emolib.models.affectgpt import prompts as words  # noqa: E402
from emolib.models.affectgpt.cache import (  # noqa: E402
    FeatureCache,
    compute_features,
    tower_identity,
)
from emolib.models.affectgpt.media import read_clip, read_sound  # noqa: E402
from tests.affectgpt_tiny import tiny_model, tiny_processor  # noqa: E402
from tests.media_files import number_of, pattern, tone, write_audio, write_video  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model folder, two clips (one silent), and a data file."""
    folder = tmp_path_factory.mktemp("swift")
    model = tiny_model()
    model.save_pretrained(folder / "model")
    processor = tiny_processor(model.config)
    processor.save_pretrained(folder / "model")
    loud = write_video(folder / "loud.mp4", 20, audio=tone(1.0)[None])
    mute = write_video(folder / "mute.mp4", 12)
    rows = []
    for clip in (loud, mute):
        prompt = words.build_prompt("train-2024", audio=clip is loud, subtitle="Hm.", question="?")
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": "joy" if clip is loud else "grief"},
        ]
        row = {"messages": messages, "videos": [str(clip)]}
        rows.append(row | {"audios": [str(clip)] if clip is loud else []})
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    return {"folder": folder, "model": model, "processor": processor, "rows": rows}


def test_the_sampler_takes_the_published_frames(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 25)
    assert [number_of(frame) for frame in read_clip(path)] == [0, 3, 6, 9, 12, 15, 18, 21]
    short = write_video(tmp_path / "short.mp4", 3)
    assert [number_of(frame) for frame in read_clip(short)] == [0, 1, 2, 2, 2, 2, 2, 2]
    assert read_sound(path) is None
    assert pattern(3).shape == read_clip(path).shape[1:]


@pytest.fixture(scope="module")
def template(world):
    import_swift()
    from swift.model import get_model_processor
    from swift.template import get_template

    import emolib.models.affectgpt.swift_plugin  # noqa: F401

    model, processor = get_model_processor(
        str(world["folder"] / "model"), torch_dtype=torch.float32, use_hf=True
    )
    assert isinstance(model, AffectGPTForConditionalGeneration)
    template = get_template(processor)
    template.set_mode("train")
    return template


def test_a_batch_is_what_the_processor_makes(world, template):
    batch = template.data_collator([template.encode(row) for row in world["rows"]])
    clips = [Path(row["videos"][0]) for row in world["rows"]]
    wanted = world["processor"](
        [row["messages"][0]["content"] for row in world["rows"]],
        videos=[read_clip(clip) for clip in clips],
        audio=[read_sound(clip) for clip in clips],
        answers=[row["messages"][1]["content"] for row in world["rows"]],
    )
    for name, value in wanted.items():
        assert torch.equal(batch[name], value), name


def test_published_sound_can_be_had_from_files(tmp_path, template):
    """Of stereo the first channel, its rate changed as published: the template's as the array's."""
    rng = np.random.default_rng(0)
    stereo = rng.integers(-9000, 9000, (2, 100_000)).astype(np.float32) / 2**15
    path = write_audio(tmp_path / "stereo.wav", stereo, 44_100)
    assert read_sound(path).ndim == 1
    assert read_sound(path, channels=True).shape == (2, 36_282)
    extractor = template.processor.feature_extractor
    plain = template._medium("audio", path)["sound"]
    extractor.reference_compat = True
    try:
        published = template._medium("audio", path)["sound"]
        wanted = extractor([stereo], sampling_rate=44_100)["input_features"][0]
        silent = extractor([stereo * [[1], [0]]], sampling_rate=44_100)["input_features"][0]
    finally:
        extractor.reference_compat = False
    torch.testing.assert_close(published, wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(published, silent, atol=5e-2, rtol=0)  # the mean is of both
    assert (published - plain).abs().mean() > 0.05


def test_cached_features_take_the_place_of_media(world, template, tmp_path, monkeypatch):
    model, processor = world["model"], world["processor"]
    direct = template.data_collator([template.encode(row) for row in world["rows"]])
    cache = FeatureCache(tmp_path, tower_identity(model, processor))
    clips = [Path(row["videos"][0]) for row in world["rows"]]
    videos = [(sha_file(clip), lambda clip=clip: read_clip(clip)) for clip in clips]
    compute_features(cache, model, processor, "video", videos)
    monkeypatch.setitem(vars(template), "cache", cache)
    with pytest.raises(DataError, match=r"loud.mp4: its audio is not in"):
        template.encode(world["rows"][0])
    sounds = [(sha_file(clips[0]), lambda: read_sound(clips[0]))]
    compute_features(cache, model, processor, "audio", sounds)
    cached = template.data_collator([template.encode(row) for row in world["rows"]])
    assert "pixel_values_videos" not in cached
    names = set(direct) | set(cached)
    assert {"frame_features", "clip_features"} <= names
    with torch.no_grad():
        losses = [model(**batch).loss.item() for batch in (direct, cached)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": []}, "<ImageHere> occurs 1 times in the text, but no video"),
        ({"audios": []}, "<AudioHere> occurs 1 times in the text, but no audio"),
        ({"messages": [{"role": "user", "content": "a"}] * 2, "videos": []}, "expected user and"),
    ],
)
def test_rows_that_do_not_fit_are_refused(world, template, change, message):
    with pytest.raises(DataError, match=message):
        template.encode(world["rows"][0] | change)


def test_swift_sft_trains_the_branches_only(world):
    out = world["folder"] / "out"
    command = [
        *(sys.executable, "-m", "swift.cli.sft", "--model", world["folder"] / "model"),
        *("--external_plugins", ROOT / "emolib/models/affectgpt/swift_plugin.py"),
        *("--dataset", world["folder"] / "rows.jsonl", "--output_dir", out),
        *("--tuner_type", "full", "--freeze_llm", "true", "--freeze_vit", "true"),
        *("--freeze_aligner", "false", "--torch_dtype", "float32", "--max_steps", "2"),
        *("--per_device_train_batch_size", "2", "--learning_rate", "1e-2", "--strict", "true"),
        *("--logging_steps", "1", "--save_steps", "2", "--report_to", "none"),
        *("--dataloader_num_workers", "0", "--dataset_num_proc", "1", "--use_hf", "true"),
        *("--add_version", "false", "--check_model", "false", "--split_dataset_ratio", "0"),
        *("--gradient_checkpointing", "true", "--load_from_cache_file", "false"),
    ]
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | environment() | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    after = load_file(out / "checkpoint-2" / "model.safetensors")
    before = dict(world["model"].state_dict())
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name.partition(".")[0] for name in changed} == {"video_branch", "audio_branch"}
    log = [json.loads(line) for line in (out / "logging.jsonl").read_text().splitlines()]
    assert np.isfinite([entry["loss"] for entry in log if "loss" in entry]).all()


def test_swifts_engine_answers_as_generate_does(world, template):
    from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine

    engine = TransformersEngine(
        str(world["folder"] / "model"), torch_dtype=torch.float32, max_batch_size=2, use_hf=True
    )
    rows = world["rows"]
    requests = [
        InferRequest(row["messages"][:1], videos=row["videos"], audios=row["audios"])
        for row in rows
    ]
    answers = engine.infer(requests, RequestConfig(max_tokens=6, temperature=0), use_tqdm=False)
    clips = [Path(row["videos"][0]) for row in rows]
    processor = world["processor"]
    batch = processor(
        [row["messages"][0]["content"] for row in rows],
        videos=[read_clip(clip) for clip in clips],
        audio=[read_sound(clip) for clip in clips],
    )
    out = world["model"].generate(**batch, max_new_tokens=6, **processor.stopping())
    wanted = processor.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :])
    assert [answer.choices[0].message.content for answer in answers] == wanted
