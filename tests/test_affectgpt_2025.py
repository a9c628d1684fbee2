"""AffectGPT of 2025: assembled from parts, pre-fusion, LoRA, labels without a description."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import (  # noqa: E402
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPVisionModelWithProjection,
    HubertModel,
    Wav2Vec2FeatureExtractor,
)

from emolib.__main__ import main  # noqa: E402
from emolib.datasets.clip import Clip  # noqa: E402
from emolib.errors import DataError, EngineError, MissingModelError  # noqa: E402
from emolib.models.affectgpt import (  # noqa: E402
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTProcessor,
)
from emolib.models.affectgpt.assemble import assemble  # noqa: E402
from emolib.models.affectgpt.lora import add_lora, merge_lora  # noqa: E402
from emolib.models.affectgpt.prompts import AUDIO, MULTI, VIDEO  # noqa: E402
from emolib.models.affectgpt.tiny import save_clip, save_hubert, save_qwen  # noqa: E402
from emolib.models.affectgpt.trained import (  # noqa: E402
    check_trainable,
    load_branches,
    save_branches,
)
from emolib.summaries import from_text  # noqa: E402
from tests.affectgpt_tiny import clip, sound, tiny_tokenizer  # noqa: E402

SAMPLES = (
    {"video": clip(1), "audio": sound(1), "subtitle": "Go away."},
    {"video": None, "audio": sound(2), "subtitle": None},
    {"video": clip(3)[0], "audio": None, "subtitle": ""},
    {"video": None, "audio": None, "subtitle": "I see."},
    {"video": clip(5, 12), "audio": sound(3), "subtitle": None},
)
ANSWERS = ("anger", "calm, sad", "joy", "doubt and more", "fear")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("parts")
    save_clip(home / "clip")
    save_hubert(home / "hubert")
    save_qwen(home / "qwen")
    return home


@pytest.fixture(scope="module")
def folder(parts: Path) -> Path:
    made = parts / "made"
    command = ["convert", "affectgpt-2025", "--vision", str(parts / "clip")]
    command += ["--audio", str(parts / "hubert"), "--llm", str(parts / "qwen")]
    assert main([*command, "--pre-fusion-size", "32", str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> AffectGPTForConditionalGeneration:
    return AffectGPTForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> AffectGPTProcessor:
    return AutoProcessor.from_pretrained(folder)


def batch_of(processor, samples, answers=None, **kwargs):
    texts = [
        processor.prompt(
            video=sample["video"] is not None,
            audio=sample["audio"] is not None,
            subtitle=sample["subtitle"],
        )
        for sample in samples
    ]
    media = {name: [s[key] for s in samples] for name, key in (("videos", "video"), ("audio",) * 2)}
    return processor(texts, **media, answers=answers, **kwargs)


# Assembling ------------------------------------------------------------------------------


def test_parts_are_what_they_were(parts, folder, model):
    clip_part = CLIPVisionModelWithProjection.from_pretrained(parts / "clip").eval()
    hubert = HubertModel.from_pretrained(parts / "hubert").eval()
    pixels = torch.randn(2, 3, 3, 56, 56)
    waves = torch.randn(2, 4, 3200)
    with torch.no_grad():
        wanted = clip_part(pixels.flatten(0, 1)).image_embeds.view(2, 3, 1, -1)
        assert torch.equal(model.encode_frames(pixels), wanted)
        layers = hubert(waves.flatten(0, 1), output_hidden_states=True).hidden_states[-4:]
        wanted = (sum(layers) / 4).mean(1).view(2, 4, -1)
        torch.testing.assert_close(model.encode_clips(waves), wanted)
    report = json.loads((folder / "conversion.json").read_text())
    assert report["parts"]["vision_tower"]["class"] == "CLIPVisionModelWithProjection"
    assert report["parts"]["audio_tower"]["folder"] == "hubert"
    assert set(report["untrained"]) == {"video_branch", "audio_branch", "multi_branch"}
    assert len(model.config.suppressed_token_ids) == 3
    assert str(parts) not in "".join(p.read_text() for p in folder.glob("*.json"))


def test_media_are_prepared_as_the_towers_were_trained(parts, processor):
    frame = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    ours = processor.video_processor([frame])["pixel_values_videos"][0, 0]
    theirs = CLIPImageProcessorPil.from_pretrained(parts / "clip")([frame], return_tensors="pt")
    # Cut and resized here, resized and cut there: the same picture but for rounding.
    assert (ours - theirs["pixel_values"][0]).abs().mean() < 0.15
    wave = sound(4, seconds=2.0)
    ours = processor.feature_extractor([wave])["input_features"][0]
    theirs = Wav2Vec2FeatureExtractor.from_pretrained(parts / "hubert")(wave, sampling_rate=16_000)
    assert ours.shape == (8, 32_000)
    np.testing.assert_allclose(ours[0], theirs["input_values"][0], atol=1e-4)
    assert (processor.feature_extractor([np.zeros(9)])["input_features"] == 0).all()


def test_the_same_seed_gives_the_same_branches(parts, folder, tmp_path):
    places = (parts / "clip", parts / "hubert", parts / "qwen")
    assemble(*places, tmp_path / "again", pre_fusion_size=32, seed=0)
    assemble(*places, tmp_path / "other", pre_fusion_size=32, seed=1)
    names = [path.name for path in folder.glob("*.safetensors")]
    assert len(names) == 2
    files = {
        at: [(at / name).read_bytes() for name in names] for at in (folder, *tmp_path.iterdir())
    }
    assert files[folder] == files[tmp_path / "again"]
    assert files[folder] != files[tmp_path / "other"]


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        ("swap", DataError, "holds 'hubert'; choose one of clip_vision_model"),
        ("preprocessor", MissingModelError, "hubert: no preprocessor_config.json"),
        ("weights", DataError, "qwen: 1 weights are missing"),
        ("config", MissingModelError, "clip: no config.json"),
        ("tower", DataError, "1 parameters of CLIPVisionModelWithProjection are missing"),
    ],
)
def test_wrong_parts_are_named_and_leave_nothing(parts, tmp_path, spoil, error, message):
    from safetensors.torch import load_file, save_file

    for name in ("clip", "hubert", "qwen"):
        shutil.copytree(parts / name, tmp_path / name)
    vision, audio = tmp_path / "clip", tmp_path / "hubert"
    if spoil == "swap":
        vision, audio = audio, vision
    elif spoil == "preprocessor":
        (audio / "preprocessor_config.json").unlink()
    elif spoil == "config":
        (vision / "config.json").unlink()
    else:
        file = tmp_path / ("qwen" if spoil == "weights" else "clip") / "model.safetensors"
        tensors = load_file(file)
        del tensors[sorted(tensors)[-1]]
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(error, match=message):
        assemble(vision, audio, tmp_path / "qwen", tmp_path / "made", pre_fusion_size=32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip", "hubert", "qwen"]


# The model -------------------------------------------------------------------------------


def other_design(fusion: str, pre_fusion: str) -> tuple:
    """A model of another mix of parts, with its processor."""
    rows = len(tiny_tokenizer())
    blocks = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    queries = {"num_query_tokens": 3} | blocks
    config = AffectGPTConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14}
        | {"num_hidden_layers": 1}
        | blocks,
        audio_config={"model_type": "wavlm", "num_hidden_layers": 4, "conv_dim": (8, 8)}
        | {"conv_kernel": (10, 8), "conv_stride": (16, 16), "num_conv_pos_embeddings": 4}
        | {"num_conv_pos_embedding_groups": 2}
        | blocks,
        text_config={"model_type": "llama", "vocab_size": rows + 3, "num_hidden_layers": 2}
        | {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
        video_qformer_config=queries if fusion == "qformer" else None,
        audio_qformer_config=queries if fusion == "qformer" else None,
        multi_qformer_config=queries if pre_fusion == "qformer" else None,
        fusion=fusion,
        pre_fusion=pre_fusion,
        pre_fusion_size=20,
        video_token_id=rows,
        audio_token_id=rows + 1,
        multi_token_id=None if pre_fusion == "none" else rows + 2,
    )
    torch.manual_seed(0)
    model = AffectGPTForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2)
    preset = "labels-2025" if pre_fusion == "none" else "fused-2025"
    return model.eval(), AffectGPTProcessor.for_config(config, tiny_tokenizer(), preset=preset)


@pytest.fixture(params=["assembled", "qformer/qformer", "mean/none"])
def pair(request: pytest.FixtureRequest) -> tuple:
    if request.param == "assembled":
        return request.getfixturevalue("model"), request.getfixturevalue("processor")
    return other_design(*request.param.split("/"))


def test_a_mixed_batch_equals_its_samples(pair):
    model, processor = pair
    batch = batch_of(processor, SAMPLES, ANSWERS, padding_side="left")
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        together = model(**batch, position_ids=positions).logits
        for row, (sample, answer) in enumerate(zip(SAMPLES, ANSWERS, strict=True)):
            alone = model(**batch_of(processor, [sample], [answer])).logits[0]
            there = batch["attention_mask"][row].bool()
            torch.testing.assert_close(together[row][there], alone, atol=5e-5, rtol=1e-4)


def test_generating_a_batch_equals_generating_one_by_one(pair):
    model, processor = pair
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    batch = batch_of(processor, SAMPLES)
    together = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
    for row, sample in enumerate(SAMPLES):
        one = batch_of(processor, [sample])
        alone = model.generate(**one, **settings)[0, one["input_ids"].shape[1] :]
        assert together[row].tolist() == alone.tolist()


def test_cached_features_give_the_same(pair):
    model, processor = pair
    batch = batch_of(processor, SAMPLES, ANSWERS)
    with torch.no_grad():
        direct = model(**batch).logits
        frames = model.encode_frames(batch.pop("pixel_values_videos"), batch["video_mask"])
        clips = model.encode_clips(batch.pop("input_features"))
        assert torch.equal(
            model(**batch, frame_features=frames, clip_features=clips).logits, direct
        )


def test_attention_is_linear_without_a_softmax(model):
    branch = model.video_branch
    states = torch.randn(2, 5, 1, 24)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    with torch.no_grad():
        weights = states[:, :, 0] @ branch.weighting.weight[0] + branch.weighting.bias
        pooled = (weights[..., None] * states[:, :, 0] * mask[..., None]).sum(1)
        torch.testing.assert_close(branch.pool(states, mask), pooled)
        torch.testing.assert_close(branch(states, mask)[:, 0], branch.projection(pooled))


def test_video_and_audio_may_be_given_for_fusion_alone(model, processor):
    both = {"videos": [clip(1), None], "audio": [sound(1), None]}
    batch = processor([f"{MULTI} Why?", "Why?"], **both)
    base = model(**batch).logits[0, -1]
    for change in ({"videos": [clip(2), None]}, {"audio": [sound(2), None]}):
        other = model(**processor([f"{MULTI} Why?", "Why?"], **(both | change))).logits[0, -1]
        assert (base - other).abs().max() > 1e-5
    with pytest.raises(DataError, match="<AudioHere> occurs 0 times in the text, but no audio"):
        processor([f"{MULTI} Why?"], videos=[clip(1)])
    ids = batch["input_ids"].clone()
    ids[1, -1] = model.config.audio_token_id
    with pytest.raises(ValueError, match="1 audio inputs, but 2 rows"):
        model(**{**batch, "input_ids": ids})


def test_a_model_without_pre_fusion_refuses_its_prompt():
    _, processor = other_design("mean", "none")
    with pytest.raises(DataError, match="this model has no pre-fusion: choose another preset"):
        processor([f"{VIDEO}{AUDIO}{MULTI}"], videos=[clip(1)], audio=[sound(1)])


def test_designs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="fusion is 'sum': choose from"):
        AffectGPTConfig(fusion="sum")
    with pytest.raises(ValueError, match="multi_token_id goes with pre_fusion"):
        AffectGPTConfig(pre_fusion="attention")
    with pytest.raises(ValueError, match="gives one vector a frame; leave it out"):
        AffectGPTConfig(vision_config={"model_type": "clip_vision_model"}, image_qformer_config={})
    with pytest.raises(ValueError, match="vision_config: 'llama': choose from"):
        AffectGPTConfig(vision_config={"model_type": "llama"})


def test_full_size_shapes_are_the_published_ones():
    """Names of the release in comments; CLIP ViT-L/14, HuBERT-large and Qwen2.5-7B."""
    large = {"num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    config = AffectGPTConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": 1024}
        | {"image_size": 224, "patch_size": 14, "projection_dim": 768}
        | large,
        audio_config={"model_type": "hubert", "hidden_size": 1024} | large,
        text_config={"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584}
        | {"intermediate_size": 18944, "num_hidden_layers": 28}
        | {"num_attention_heads": 28, "num_key_value_heads": 4},
        fusion="attention",
        pre_fusion="attention",
        video_token_id=151665,
        audio_token_id=151666,
        multi_token_id=151667,
    )
    with torch.device("meta"):
        full = AffectGPTForConditionalGeneration(config)
        add_lora(full, 16, 32.0, 0.05)
    shapes = {n: tuple(p.shape) for n, p in full.named_parameters() if n.endswith("weight")}
    assert {n: s for n, s in shapes.items() if "branch" in n} == {
        "video_branch.weighting.weight": (1, 768),  # video_attention_mlp
        "video_branch.projection.weight": (3584, 768),  # affectgpt_proj
        "audio_branch.weighting.weight": (1, 1024),  # audio_attention_mlp
        "audio_branch.projection.weight": (3584, 1024),  # audio_llama_proj
        "multi_branch.video_embedding.weight": (1024, 768),  # multi_video_embs
        "multi_branch.audio_embedding.weight": (1024, 1024),  # multi_audio_embs
        "multi_branch.mixing.weight": (1024, 2048),  # attention_mlp
        "multi_branch.weighting.weight": (2, 1024),  # fc_att
        "multi_branch.projection.weight": (3584, 1024),  # multi_llama_proj
    }
    trained = full.freeze_towers()
    lora = [n for n in trained if ".lora_" in n]
    assert len(lora) == 2 * 7 * 28  # q, k, v, o, gate, up and down of 28 blocks
    assert sum(p.numel() for n, p in full.named_parameters() if ".lora_" in n) == 40_370_176


# Training --------------------------------------------------------------------------------


def test_lora_and_branches_are_trained_and_nothing_else(folder, processor, tmp_path):
    def fresh() -> AffectGPTForConditionalGeneration:
        return AffectGPTForConditionalGeneration.from_pretrained(folder).eval()

    model, batch = fresh(), batch_of(processor, SAMPLES, ANSWERS)
    with torch.no_grad():
        before = model(**batch).logits
    torch.manual_seed(0)
    added = add_lora(model, 4, 8.0, 0.1)
    assert len(added) == 2 * 2 * 7  # two factors on seven layers of two blocks
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, before)
    with pytest.raises(EngineError, match="a LoRA already"):
        add_lora(model, 4, 8.0, 0.1)
    trained = set(model.freeze_towers())
    tensors, numbers = check_trainable(model)
    assert tensors == len(trained) == len(added) + 18
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for samples in (SAMPLES, SAMPLES[3:4]):  # the second has neither video nor audio
        optimizer.zero_grad()
        model(**batch_of(processor, samples, ANSWERS[: len(samples)])).loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
    same = {name for name, p in model.named_parameters() if torch.equal(p, start[name])}
    assert same == set(start) - trained
    model.eval()
    save_branches(model, tmp_path / "branches.safetensors")
    again = fresh()
    load_branches(again, tmp_path / "branches.safetensors")
    with torch.no_grad():
        after = model(**batch).logits
        assert (after - before).abs().max() > 1e-2
        assert torch.equal(again(**batch).logits, after)
        merge_lora(again)
        torch.testing.assert_close(again(**batch).logits, after, atol=1e-5, rtol=1e-4)
    assert again.state_dict().keys() == fresh().state_dict().keys()
    assert numbers == sum(start[name].numel() for name in trained)


def test_labels_are_said_and_read_without_a_description():
    from emolib import sft

    one = Clip(
        "a", Path("x.npy"), labels=("happy", "at a loss for words"), description="He smiles."
    )
    rows = sft.clip_rows([replace(one, subtitle="Hm.")], "fused-2025", "both")
    questions = [row["messages"][0]["content"] for row in rows]
    answers = [row["messages"][1]["content"] for row in rows]
    assert "From what clues" in questions[0]
    assert "Please recognize all possible emotional states of the character." in questions[1]
    assert MULTI not in questions[0]  # no sound, nothing to fuse
    assert answers == [
        "He smiles.",
        "The character's emotional state is happy, at a loss for words.",
    ]
    assert from_text(answers[1])[0] == ("happy", "at a loss for words")
    assert from_text("The character's emotional state is reflected in his calm voice. He is sad.")[
        0
    ] == ("sad",)
    [row] = sft.clip_rows([one], "paper", "description")
    assert "Please provide a detailed description" in row["messages"][0]["content"]


def test_the_stage_trains_and_asks_it(folder, tmp_path):
    """Clips with and without sound, as faces; two kinds of answers; LoRA; a whole prediction."""
    pytest.importorskip("swift")
    from emolib import sft
    from emolib.ledger import Ledger
    from emolib.params import Decoding, ModelParams
    from emolib.params.affectgpt import LlmLora, SftParams
    from emolib.params.media import FaceParams
    from tests.media_files import tone, write_video

    known = {"labels": ("calm", "sad"), "description": "He is calm and sad.", "subtitle": "Hm."}
    loud = write_video(tmp_path / "loud.mp4", 12, audio=tone(1.0)[None])
    clips = [
        Clip("loud", loud, **known),
        Clip("mute", write_video(tmp_path / "m.mp4", 12), **known),
    ]
    clips.append(Clip("gone", tmp_path / "gone.mp4"))
    shown, counts = sft.shown_clips(clips, "face", FaceParams(size=64), tmp_path / "faces")
    assert counts == {"clips": 2, "frames": 16, "found": 0}  # a number's picture has no face
    assert [clip.audio for clip in shown] == [loud, None, None]
    assert shown == sft.shown_clips(clips, "face", FaceParams(size=64), tmp_path / "faces")[0]
    model = ModelParams(
        model=str(folder), device="cpu", dtype="float32", decoding=Decoding(max_new_tokens=4)
    )
    preset = sft.preset_of(model, "")
    rows = sft.clip_rows(shown[:2], preset, "both")
    recipe = SftParams(
        epochs=1,
        steps_per_epoch=3,
        batch_size=2,
        learning_rate=1e-2,
        min_learning_rate=1e-2,
        lora=LlmLora(rank=2, alpha=4),
    )
    plan = sft.plan(len(rows), 0, 0.0, recipe, 0)
    done = sft.train_branches(model, recipe, rows, plan, tmp_path / "run", val=rows[:1])
    rates = {entry["learning_rate"] for entry in done.history if "loss" in entry}
    assert rates == {1e-2}
    assert done.tensors == 18 + 2 * 2 * 7
    assert done.checkpoints[-1].eval_loss is not None
    trained = model.model_copy(update={"adapters": (str(done.checkpoints[-1].file),)})
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        before = sft.predict_clips(shown, model, ledger, system="x")
        after = sft.predict_clips(shown, trained, ledger, system="x")
    assert [p.status for p in after] == ["ok", "ok", "error"]
    assert before[0].description != after[0].description
    assert sft.is_affectgpt(model)
