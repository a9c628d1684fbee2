"""Prompts, token ids, frames and mel spectrograms against the published ones.

Tolerances are those of the goldens' README: mel clips 3e-4, their means 5e-5, resampling
1e-5, pixels 1e-6 (1e-5 after Pillow's bicubic).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from transformers import AutoProcessor, AutoTokenizer  # noqa: E402

from emolib import prompts as paper  # noqa: E402
from emolib.errors import DataError, MediaError, MissingModelError  # noqa: E402
from emolib.models.affectgpt import (  # noqa: E402
    AffectGPTConfig,
    AffectGPTProcessor,
    AffectGPTVideoProcessor,
    ImageBindFeatureExtractor,
)
from emolib.models.affectgpt.frames import random_crop  # noqa: E402
from emolib.models.affectgpt.media import sample_indices  # noqa: E402
from emolib.models.affectgpt.prompts import (  # noqa: E402
    ALL_PRESETS,
    AUDIO,
    IMAGE_QUESTIONS,
    VIDEO,
    build_prompt,
    next_turn,
)
from emolib.models.affectgpt.sound import clip_starts, log_mel, resample  # noqa: E402
from emolib.models.affectgpt.tokenizing import load_tokenizer  # noqa: E402
from tests.affectgpt_tiny import DATA, clip, sound, tiny_config, tiny_processor  # noqa: E402
from tests.shared import shared  # noqa: E402

CASES = {c["name"]: c for c in json.loads((DATA / "tokenization.json").read_text())["cases"]}
FRAMES = json.loads((DATA / "frames.json").read_text())
MEL = json.loads((DATA / "mel.json").read_text())

SUBTITLE = "Don't talk to me about feelings anymore."
EMOTION = "From what clues can we infer the person's emotional state?"
AVT, VT = {"subtitle": SUBTITLE}, {"subtitle": SUBTITLE, "audio": False}
INFER = {"preset": "infer-2024"}
RUNS = {"reference_compat": True}
IMAGE = {"audio": False, "image": True}
PROMPTS = {
    "emotion_subtitle": {"preset": "train-2024"} | AVT,
    "emotion_no_subtitle": {"preset": "train-2024", "subtitle": ""},
    "emotion_subtitle_non_ascii": {"preset": "train-2024", "subtitle": "你好,我没事。"},
    **{
        f"minigpt4_{i}": {"preset": "image-2024", "question": question} | IMAGE
        for i, question in enumerate(IMAGE_QUESTIONS)
    },
    "llava_two_turns": {"preset": "chat-2024", "question": "What is the person doing?"} | IMAGE,
    "videochat_two_turns": {
        "preset": "chat-2024",
        "question": "What is the person doing?",
        "audio": False,
    },
    "paper_subtitle": AVT,
    "paper_no_subtitle": {"subtitle": ""},
    "paper_subtitle_stray_quote": AVT | RUNS,
    "inference_avt_subtitle": INFER | AVT | RUNS,
    "inference_avt_subtitle_single_spaced": INFER | AVT,
    "inference_avt_none": INFER | RUNS | {"subtitle": "None"},
    "inference_avt_none_single_spaced": INFER | {"subtitle": "None"},
    "inference_vt_subtitle": INFER | VT | RUNS,
    "inference_vt_subtitle_single_spaced": INFER | VT,
    "inference_vt_none": INFER | RUNS | VT | {"subtitle": "None"},
    "inference_vt_none_single_spaced": INFER | VT | {"subtitle": "None"},
}


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    """LLaMA's tokenizer, cut down to the pieces that can occur in the golden prompts.

    Pieces keep their ids; scores are by rank, as in LLaMA's file, where runs of spaces come
    last. EMOLIB_LLAMA_TOKENIZER names a folder with the real one to use instead.
    """
    if real := os.environ.get("EMOLIB_LLAMA_TOKENIZER"):
        return Path(real)
    from sentencepiece import sentencepiece_model_pb2

    known = json.loads((DATA / "llama_pieces.json").read_text())
    pieces = {int(number): piece for number, piece in known.items()}
    model = sentencepiece_model_pb2.ModelProto()
    for number in range(32_000):
        piece = model.pieces.add()
        if number < 259:
            first = ("<unk>", "<s>", "</s>")
            piece.piece = first[number] if number < 3 else f"<0x{number - 3:02X}>"
            piece.type = (2, 3, 3)[number] if number < 3 else 6
        else:
            piece.piece = pieces.get(number, f"\u2060unused{number}")
            spaces = len(piece.piece) > 1 and set(piece.piece) == {"▁"}
            piece.score = -1e9 if spaces else 259.0 - number
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = 32_000
    model.trainer_spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    folder = tmp_path_factory.mktemp("llama")
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": "<unk>"}))
    return folder


@pytest.fixture(scope="module")
def processors(llama_folder):
    return {
        compat: AffectGPTProcessor.for_config(
            AffectGPTConfig(),
            AutoTokenizer.from_pretrained(llama_folder),
            reference_compat=compat,
        )
        for compat in (False, True)
    }


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_config())


# Prompts and token ids -------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CASES))
def test_prompts_are_the_published_ones_to_the_letter(name):
    turns = CASES[name]["turns"]
    assert build_prompt(**PROMPTS[name]) == turns[0]["prompt"]
    if len(turns) == 2:
        assert next_turn("Is he happy?") == turns[1]["prompt"]


# Runs of spaces need SentencePiece itself.
SINGLE_SPACED = [name for name, c in CASES.items() if "   " not in c["turns"][0]["prompt"]]


@pytest.mark.parametrize(
    ("name", "compat"),
    [(name, True) for name in CASES] + [(name, False) for name in SINGLE_SPACED],
)
def test_token_ids_and_labels(processors, name, compat):
    case = CASES[name]
    turns = [
        (turn["prompt"], turn["answer"].removesuffix("###") if "answer" in turn else None)
        for turn in case["turns"]
    ]
    ids, labels = processors[compat].encode(turns)
    assert ids == case["input_ids"]
    supervised = {i for a, b in case["supervised_spans"] for i in range(a, b)}
    assert labels == [x if i in supervised else -100 for i, x in enumerate(ids)]


def test_a_saved_processor_gives_the_same_ids(processors, llama_folder, tmp_path):
    processors[False].save_pretrained(tmp_path)
    shutil.copy(llama_folder / "tokenizer.model", tmp_path)
    for compat in (False, True):
        again = AutoProcessor.from_pretrained(tmp_path, reference_compat=compat)
        for name in CASES if compat else SINGLE_SPACED:
            (prompt, *_), case = (t["prompt"] for t in CASES[name]["turns"]), CASES[name]
            ids, _ = again.encode([(prompt, None)])
            assert ids == case["input_ids"][: len(ids)]


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {"tokenizer_class": "LLaMATokenizer", "bos_token": "", "eos_token": "", "unk_token": ""},
        {"tokenizer_class": "LlamaTokenizer"}
        | dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
        | {"pad_token": "[PAD]"},
    ],
    ids=["no settings", "early LLaMA", "Vicuna v0"],
)
def test_tokenizers_of_early_folders_are_mended(llama_folder, tmp_path, settings):
    shutil.copy(llama_folder / "tokenizer.model", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    processor = AffectGPTProcessor.for_config(AffectGPTConfig(), tokenizer)
    pad = settings is not None and "pad_token" in settings
    assert processor.video_token_id == 32_000 + pad
    case = CASES["paper_subtitle"]
    turn = case["turns"][0]
    ids, _ = processor.encode([(turn["prompt"], turn["answer"].removesuffix("###"))])
    assert [i - pad if i >= 32_000 else i for i in ids] == case["input_ids"]


def test_a_tokenizer_unlike_its_sentencepiece_file_is_refused(llama_folder, tmp_path):
    other = tiny_processor(tiny_config()).tokenizer
    other.save_pretrained(tmp_path)
    shutil.copy(llama_folder / "tokenizer.model", tmp_path)
    with pytest.raises(DataError, match=r"remove tokenizer.json"):
        load_tokenizer(tmp_path)


def test_the_papers_prompt_is_the_one_all_systems_share():
    shared_prompt = paper.AFFECTGPT.render(subtitle=SUBTITLE)
    assert build_prompt("paper", subtitle=SUBTITLE) == shared_prompt


@pytest.mark.parametrize("preset", sorted(ALL_PRESETS))
@pytest.mark.parametrize("subtitle", [None, "", "Oh no!"])
@pytest.mark.parametrize("audio", [False, True])
@pytest.mark.parametrize("video", [False, True])
def test_what_is_absent_leaves_no_trace(preset, video, audio, subtitle):
    text = build_prompt(preset, video=video, audio=audio, subtitle=subtitle)
    assert text.count(VIDEO) == text.count("open your eyes") == video
    assert text.count(AUDIO) == text.count("open your ears") == audio
    assert text.count("<MultiHere>") == (preset == "fused-2025" and video and audio)
    assert text.count("<Subtitle>") == (subtitle is not None)
    evidence = text.partition("Now answer my question based on ")[2]
    if evidence:
        assert ("seen" in evidence) is video
        assert ("heard" in evidence) is audio
        assert ("subtitle" in evidence) is (subtitle is not None)
    assert "  " not in text


@given(st.text(max_size=40))
def test_no_subtitle_can_act_as_a_placeholder_or_turn(text):
    prompt = build_prompt(
        "paper", subtitle=f"{text}<ImageHere>###Human: <AudioHere>", question=text
    )
    assert prompt.count(VIDEO) == prompt.count(AUDIO) == 1
    assert prompt.count("###") == 2


def test_text_never_becomes_a_special_token(processor):
    ids, _ = processor.encode([("</s><s> a", None)])
    assert 2 not in ids
    assert ids.count(1) == 1


def test_an_unknown_preset_names_the_choices():
    with pytest.raises(ValueError, match=r"unknown prompt preset 'x'; choose from .*paper"):
        build_prompt("x")


def test_compat_without_sentencepiece_says_what_is_missing():
    processor = tiny_processor(tiny_config(), reference_compat=True)
    with pytest.raises(MissingModelError, match=r"tokenizer.model: not there"):
        processor.encode([("hello", None)])


# Batches ---------------------------------------------------------------------------------


def test_training_pads_right_and_asking_pads_left(processor):
    asked = processor(["abc", "a"])
    assert asked["attention_mask"].tolist()[1][0] == 0
    assert "labels" not in asked
    taught = processor(["abc", "a"], answers=["x", "yy"])
    assert taught["attention_mask"][1, -1] == 0
    assert (taught["labels"][taught["attention_mask"] == 0] == -100).all()
    assert (taught["labels"] != -100).sum(1).tolist() == [5, 6]  # prefix space, answer, ###


@pytest.mark.parametrize(
    ("text", "kwargs", "message"),
    [
        ("a", {"videos": [clip(0)]}, "<ImageHere> occurs 0 times in the text, but one video"),
        (VIDEO, {}, "<ImageHere> occurs 1 times in the text, but no video"),
        (AUDIO * 2, {"audio": [sound(0)]}, "<AudioHere> occurs 2 times"),
        ("a", {"audio": [None, None]}, "2 audio for 1 texts"),
        ("a", {"answers": ["b", "c"]}, "2 answers for 1 prompts"),
        ("a" * 2000, {}, "more than max_length=1024"),
    ],
)
def test_mistakes_name_the_sample_and_the_mending(processor, text, kwargs, message):
    with pytest.raises(DataError, match=message):
        processor([text], **kwargs)


# Frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("total", sorted(FRAMES["indices"], key=int))
def test_frame_indices(total):
    wanted = FRAMES["indices"][total]
    assert sample_indices(int(total), FRAMES["num_frames"]).tolist() == wanted


@given(st.integers(1, 4000), st.integers(1, 64))
def test_frame_indices_stay_inside_and_ordered(total, wanted):
    indices = sample_indices(total, wanted)
    assert len(indices) == wanted
    assert (np.diff(indices) >= 0).all()
    assert indices[0] == 0
    assert indices[-1] < total


def test_evaluation_pixels():
    golden = FRAMES["eval_transform"]
    y, x, c = np.mgrid[:224, :224, :3]
    frame = (37 * y + 11 * x + 97 * c + y * x // 7 + 13 * (y // 16) * (x // 16)) % 256
    frame = frame.astype(np.uint8)
    assert hashlib.sha256(frame.tobytes()).hexdigest() == golden["frame_uint8_sha256"]
    pixels = AffectGPTVideoProcessor()([frame[None].repeat(8, 0)])["pixel_values_videos"].numpy()
    assert pixels.shape == (1, 8, 3, 224, 224)
    for sample in golden["samples"]:
        got = pixels[0, 3, :, sample["y"], sample["x"]]
        np.testing.assert_allclose(got, sample["value"], atol=1e-6)
    for channel, name in enumerate("RGB"):
        table = np.array(golden["lookup"][name], np.float32)
        np.testing.assert_allclose(pixels[0, 0, channel], table[frame[..., channel]], atol=1e-6)


def test_still_image_pixels():
    golden = FRAMES["image_eval_transform"]
    y, x, c = np.mgrid[:360, :640, :3]
    v = (2 * y + x + 60 * c + y * x // 90) % 510
    frame = np.where(v <= 255, v, 510 - v).astype(np.uint8)
    assert hashlib.sha256(frame.tobytes()).hexdigest() == golden["frame_uint8_sha256"]
    pixels = AffectGPTVideoProcessor()([frame])["pixel_values_videos"].numpy()
    assert pixels.shape == (1, 1, 3, 224, 224)
    grid = pixels[0, 0][:, 8::16, 8::16]
    np.testing.assert_allclose(grid, np.array(golden["value"]), atol=1e-5)


def test_resizing_never_wraps_around():
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, 31:33] = 255  # a bicubic kernel overshoots on both sides
    pixels = AffectGPTVideoProcessor()([frame])["pixel_values_videos"].numpy()[0, 0]
    mean, std = (
        np.array(x)[:, None] for x in (FRAMES["eval_transform"][k] for k in ("mean", "std"))
    )
    levels = pixels.reshape(3, -1) * std + mean
    assert levels.min() > -1e-6
    assert (levels[:, (pixels.shape[-1] * 0) :: 224] < 0.02).all(), "the far edge stays black"


def test_stills_among_videos_are_masked():
    out = AffectGPTVideoProcessor(size={"height": 14, "width": 14})([clip(0, 9), clip(1)[0]])
    assert out["pixel_values_videos"].shape == (2, 8, 3, 14, 14)
    assert out["video_mask"].sum(1).tolist() == [8, 1]


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 99))
def test_training_crops_lie_inside(height, width, seed):
    left, top, right, bottom = random_crop(height, width, np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_a_training_crop_is_the_same_for_all_frames():
    video = clip(0, 1).repeat(8, 0)
    out = AffectGPTVideoProcessor(size={"height": 14, "width": 14})(
        [video], rng=np.random.default_rng(0)
    )["pixel_values_videos"][0]
    assert all(torch.equal(out[0], frame) for frame in out)


@pytest.mark.parametrize(
    "video", [np.zeros((2, 4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_frames_of_another_kind_are_refused(video):
    with pytest.raises(MediaError, match="video 0: .*expected uint8"):
        AffectGPTVideoProcessor()([video])


# Sound -----------------------------------------------------------------------------------


def waveform(name):
    """The goldens' synthetic recording: float32 [channels, samples] and its rate."""
    s = MEL["waveforms"][name]
    n = round(s["duration"] * s["rate"])
    t = np.arange(n) / s["rate"]
    noise = np.random.RandomState(s["seed"]).standard_normal((s["channels"], n))
    rows = []
    for c in range(s["channels"]):
        f0 = s["f0"] * (1.25 if c else 1)
        sines = (
            0.20 * np.sin(2 * np.pi * (f0 * t + 35 * t**2))
            + 0.12 * np.sin(2 * np.pi * 3.1 * f0 * t + 0.7)
            + 0.07 * np.sin(2 * np.pi * 11.7 * f0 * t)
        )
        loudness = 0.55 + 0.45 * np.sin(2 * np.pi * 1.3 * t + c)
        drift = s["dc0"] * (1 - 1.6 * c) + s["dc1"] * t / s["duration"]
        rows.append(loudness * sines + 0.015 * noise[c] + drift)
    pcm = np.rint(np.clip(rows, -0.999, 0.999) * 32767).astype(np.int16)
    assert hashlib.sha256(pcm.tobytes()).hexdigest() == s["pcm_int16_sha256"]
    return pcm.astype(np.float32) / 32768, s["rate"]


def summary(clips):
    """Means as the goldens keep them: over mel bins, and over the 198 real frames."""
    return clips.mean(1), clips[..., :198].mean(2)


@pytest.mark.parametrize("name", sorted(MEL["waveforms"]))
def test_published_mel(name):
    stored = np.load(DATA / "mel.npz", allow_pickle=False)
    wave, rate = waveform(name)
    extract = ImageBindFeatureExtractor(reference_compat=True)
    features = extract([wave], sampling_rate=rate)["input_features"].numpy()[0, :, 0]
    assert features.shape == (8, 128, 204)
    over_mel, over_frames = summary(features)
    np.testing.assert_allclose(over_mel, stored[f"{name}.reference.mean_over_mel"], atol=5e-5)
    np.testing.assert_allclose(over_frames, stored[f"{name}.reference.mean_over_frames"], atol=5e-5)


@pytest.mark.parametrize("name", sorted(MEL["waveforms"]))
def test_mel_of_untouched_clips(name):
    stored = np.load(DATA / "mel.npz", allow_pickle=False)
    wave, rate = waveform(name)
    first = resample(wave, rate, 16_000)[0]
    first = np.pad(first, (0, max(32_000 - len(first), 0)))
    starts = clip_starts(len(first), 8, 32_000, reference_compat=True)
    assert starts.tolist() == MEL["waveforms"][name]["clip_start_sample"]
    mel = log_mel(np.stack([first[s : s + 32_000] for s in starts]))
    mel = (np.pad(mel, ((0, 0), (0, 0), (0, 6))) + 4.268) / 9.138
    over_mel, over_frames = summary(mel)
    np.testing.assert_allclose(over_mel, stored[f"{name}.ideal.mean_over_mel"], atol=5e-5)
    np.testing.assert_allclose(over_frames, stored[f"{name}.ideal.mean_over_frames"], atol=5e-5)


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(MEL["waveforms"]))
def test_whole_published_clips_and_resampling(name):
    stored = np.load(shared("golden/affectgpt/mel.npz"), allow_pickle=False)
    wave, rate = waveform(name)
    extract = ImageBindFeatureExtractor(reference_compat=True)
    features = extract([wave], sampling_rate=rate)["input_features"].numpy()[0, :, 0]
    kept = features[stored[f"{name}.clip_index"]]
    np.testing.assert_allclose(kept, stored[f"{name}.reference.clips"], atol=3e-4)
    if rate != 16_000:
        got = resample(wave, rate, 16_000)[:, ::16]
        np.testing.assert_allclose(got, stored[f"{name}.resampled_every_16th"], atol=1e-5)


def test_default_clips_reach_the_end():
    name = "mono_5.7s"
    n = MEL["waveforms"][name]["samples_at_16k_after_padding"]
    starts = clip_starts(n, 8, 32_000)
    assert starts[-1] + 32_000 == n
    wanted = MEL["waveforms"][name]["clip_start_s_if_divided_by_7"]
    np.testing.assert_allclose(starts / 16_000, wanted, atol=1 / 16_000)


def test_default_hears_every_channel_and_overlap_changes_nothing():
    rng = np.random.default_rng(0)
    left, right = rng.normal(0, 0.1, (2, 40_000)).astype(np.float32)
    extract = ImageBindFeatureExtractor()
    mono = extract.extract(((left + right) / 2)[None], 16_000)
    np.testing.assert_allclose(extract.extract(np.stack([left, right]), 16_000), mono, atol=1e-4)
    loud = extract.extract(np.stack([left * 0, right]), 16_000)
    silent = ImageBindFeatureExtractor(reference_compat=True).extract(
        np.stack([left * 0, right]), 16_000
    )
    assert loud.mean() > silent.mean() + 0.3


@pytest.mark.parametrize("samples", [1, 159, 400, 31_999])
def test_very_short_recordings_are_padded_with_silence(samples):
    features = ImageBindFeatureExtractor()([np.full(samples, 0.1, np.float32)])["input_features"]
    assert features.shape == (1, 8, 1, 128, 204)
    assert features.isfinite().all()
    assert torch.equal(features[0, 0], features[0, 7])


def test_integer_samples_count_as_fractions():
    wave = sound(0)
    pcm = np.rint(wave * 32768).astype(np.int16)
    extract = ImageBindFeatureExtractor()
    both = extract([pcm, pcm.astype(np.float32) / 32768])["input_features"]
    assert torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(0), "audio 1: shape"),
        (np.zeros((1, 2, 3)), "audio 1: shape"),
        (np.array([0.0, np.nan]), "audio 1: holds NaN"),
    ],
)
def test_unusable_audio_is_refused(wave, message):
    with pytest.raises(MediaError, match=message):
        ImageBindFeatureExtractor()([sound(0), wave])


@given(st.integers(1, 3000), st.sampled_from([8000, 22_050, 44_100, 48_000]))
def test_resampled_length_and_level(samples, rate):
    out = resample(np.full(samples, 0.5, np.float32), rate, 16_000)
    assert out.shape == (-(-samples * 16_000 // rate),)
    middle = out[len(out) // 2]
    if samples > 200:
        assert middle == pytest.approx(0.5, abs=5e-3)
