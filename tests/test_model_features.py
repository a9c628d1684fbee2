"""Extractors over tiny random checkpoints of each architecture, built by code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from emolib.datasets.clip import Clip
from emolib.errors import MissingModelError
from emolib.features.cache import FeatureCache
from emolib.features.table import feature_table
from emolib.models.features.audio import cut
from emolib.models.features.open import feature_tables, open_extractor
from emolib.params.discriminative import FeatureParams
from tests.media_files import tone, write_audio, write_video

HIDDEN = 16
SMALL = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def save(model_class, config, folder: Path) -> Path:
    """Write random weights wide enough that the input matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(0, weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return folder


def speech_model(folder: Path, kind: str) -> Path:
    import transformers as tf

    if kind == "whisper":
        config = tf.WhisperConfig(
            d_model=HIDDEN,
            encoder_layers=5,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_mel_bins=80,
            vocab_size=50,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        tf.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
        return save(tf.WhisperModel, config, folder)
    name, norm = kind.split("-")
    configs = {
        "hubert": (tf.HubertConfig, tf.HubertModel),
        "wav2vec2": (tf.Wav2Vec2Config, tf.Wav2Vec2Model),
    }
    config_class, model_class = configs[name]
    config = config_class(
        **SMALL,
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 8, 8),
        num_feat_extract_layers=3,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        vocab_size=40,
    )
    front = tf.Wav2Vec2FeatureExtractor(
        feature_size=1, do_normalize=True, return_attention_mask=norm == "layer"
    )
    front.save_pretrained(folder)
    return save(model_class, config, folder)


SPEECH = ["hubert-layer", "hubert-group", "wav2vec2-layer", "wav2vec2-group", "whisper"]


def sounds() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = (8_000, 5_123, 8_000, 21_007)
    return [(tone(n / 16_000)[:n] + rng.normal(size=n) * 0.05).astype(np.float32) for n in sizes]


@pytest.mark.parametrize("kind", SPEECH)
def test_speech_does_not_depend_on_the_batch(tmp_path, kind):
    folder = speech_model(tmp_path / "m", kind)
    params = FeatureParams(
        kind="audio_model", model=str(folder), batch_size=4, chunk_s=1.0, device="cpu"
    )
    together = open_extractor(params).extract(sounds())
    alone = [open_extractor(params).extract([sound])[0] for sound in sounds()]
    for a, b in zip(together, alone, strict=True):
        assert a.shape == (HIDDEN,)
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3)
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize("kind", ["hubert-layer", "whisper"])
def test_an_utterance_is_the_mean_of_its_frames(tmp_path, kind):
    folder = speech_model(tmp_path / "m", kind)
    common = {"kind": "audio_model", "model": str(folder), "device": "cpu"}
    frames = open_extractor(FeatureParams(**common, level="frame")).extract(sounds()[:2])
    means = open_extractor(FeatureParams(**common)).extract(sounds()[:2])
    for table, mean, sound in zip(frames, means, sounds(), strict=False):
        assert table.shape[0] == pytest.approx(sound.size / 320, abs=1)
        np.testing.assert_allclose(table.mean(axis=0), mean, atol=1e-5)


def test_layers_are_summed_as_in_the_baselines(tmp_path):
    import transformers as tf

    folder = speech_model(tmp_path / "m", "hubert-layer")
    params = FeatureParams(kind="audio_model", model=str(folder), device="cpu")
    [found] = open_extractor(params).extract(sounds()[:1])
    model = tf.AutoModel.from_pretrained(folder).eval()
    x = sounds()[0]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-7)
    with torch.inference_mode():
        states = model(torch.from_numpy(x)[None], output_hidden_states=True).hidden_states
    expected = torch.stack(states[-4:]).sum(dim=0)[0].mean(dim=0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    mean = params.model_copy(update={"join": "mean"})
    np.testing.assert_allclose(
        open_extractor(mean).extract(sounds()[:1])[0], expected / 4, atol=1e-4
    )


def test_sounds_are_cut_without_losing_a_sample():
    sound = np.arange(1_000.0)
    assert [p.size for p in cut(sound, 450)] == [450, 550]
    assert [p.size for p in cut(sound, 2_000)] == [1_000]
    np.testing.assert_array_equal(np.concatenate(cut(sound, 450)), sound)


def visual_model(folder: Path, kind: str) -> Path:
    import transformers as tf

    small = {**SMALL, "image_size": 28, "patch_size": 14}
    square = {"height": 28, "width": 28}
    if kind == "clip":
        vision = tf.CLIPVisionConfig(**small, projection_dim=HIDDEN)
        text = tf.CLIPTextConfig(
            **SMALL, vocab_size=40, projection_dim=HIDDEN, bos_token_id=0, eos_token_id=1
        )
        config = tf.CLIPConfig(
            vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=HIDDEN
        )
        front = tf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=square)
        front.save_pretrained(folder)
        return save(tf.CLIPModel, config, folder)
    if kind == "dinov2":
        front = tf.BitImageProcessor(size={"shortest_edge": 28}, crop_size=square)
        front.save_pretrained(folder)
        config = tf.Dinov2Config(**{k: v for k, v in small.items() if k != "intermediate_size"})
        return save(tf.Dinov2Model, config, folder)
    front = tf.VideoMAEImageProcessor(size={"shortest_edge": 28}, crop_size=square)
    front.save_pretrained(folder)
    return save(tf.VideoMAEModel, tf.VideoMAEConfig(**small, num_frames=4), folder)


def pictures(n: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(n)]


@pytest.mark.parametrize("kind", ["clip", "dinov2", "videomae"])
def test_pictures_do_not_depend_on_the_batch(tmp_path, kind):
    folder = visual_model(tmp_path / "m", kind)
    params = FeatureParams(kind="visual_model", model=str(folder), frames=4, device="cpu")
    extractor = open_extractor(params)
    items = [pictures(4, seed) for seed in range(3)]
    together = extractor.extract(items)
    for item, row in zip(items, together, strict=True):
        assert row.shape == (HIDDEN,)
        np.testing.assert_allclose(extractor.extract([item])[0], row, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-4
    frames = open_extractor(params.model_copy(update={"level": "frame"})).extract(items)
    assert frames[0].shape == ((2 if kind == "videomae" else 4), HIDDEN)
    np.testing.assert_allclose(frames[0].mean(axis=0), together[0], atol=1e-4)


def test_clip_gives_the_projected_image_features(tmp_path):
    import transformers as tf

    folder = visual_model(tmp_path / "m", "clip")
    params = FeatureParams(kind="visual_model", model=str(folder), device="cpu")
    [found] = open_extractor(params).extract([pictures(1, 0)])
    front = tf.AutoImageProcessor.from_pretrained(folder)
    model = tf.CLIPModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = model.get_image_features(**front(images=pictures(1, 0), return_tensors="pt"))
    expected = out if isinstance(out, torch.Tensor) else out.pooler_output
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-4)


def text_model(folder: Path, kind: str) -> Path:
    import transformers as tf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"你好走吧哈", "go", "away", "not", "happy", "!"]
    made = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if kind == "bert":
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if kind == "bert":
        names["pad_token"] = "[PAD]"
    else:
        names["eos_token"] = "[SEP]"  # like most causal models: no padding token of its own
    tf.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    if kind == "bert":
        return save(tf.BertModel, tf.BertConfig(**SMALL, vocab_size=len(words)), folder)
    config = tf.LlamaConfig(**SMALL, vocab_size=len(words), num_key_value_heads=2)
    return save(tf.LlamaForCausalLM, config, folder)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_texts_do_not_depend_on_the_batch(tmp_path, kind):
    folder = text_model(tmp_path / "m", kind)
    params = FeatureParams(kind="text_model", model=str(folder), device="cpu")
    extractor = open_extractor(params)
    texts = ["你 好", "go away not happy !", "哈", "zzz"]
    together = extractor.extract(texts)
    for text, row in zip(texts, together, strict=True):
        assert row.shape == (HIDDEN,)
        np.testing.assert_allclose(extractor.extract([text])[0], row, atol=1e-4)
    frames = open_extractor(params.model_copy(update={"level": "frame"})).extract(texts)
    assert [len(f) for f in frames] == [2, 5, 1, 1]


def test_from_clip_to_table_and_out_of_the_cache_with_the_same_bytes(tmp_path):
    sound = np.stack([tone(0.5)])
    clips = [
        Clip("a", write_video(tmp_path / "a.mp4", 8, audio=sound), subtitle="go away"),
        Clip("b", write_video(tmp_path / "b.mp4", 9, audio=0.5 * sound), subtitle="你 好"),
        Clip("c", write_audio(tmp_path / "c.wav", sound), subtitle=None),
    ]
    features = [
        FeatureParams(
            kind="audio_model", model=str(speech_model(tmp_path / "hubert", "hubert-layer"))
        ),
        FeatureParams(
            kind="visual_model", model=str(visual_model(tmp_path / "clip", "clip")), frames=2
        ),
        FeatureParams(kind="text_model", model=str(text_model(tmp_path / "bert", "bert"))),
    ]
    first = feature_tables(clips, features, tmp_path / "cache")
    assert [t.name for t in first] == ["hubert", "clip", "bert"]
    assert [t.missing.tolist() for t in first] == [
        [False, False, False],
        [False, False, True],
        [False, False, True],
    ]
    files = {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.npy")}
    again = open_extractor(features[0])
    table = feature_table(clips, again, FeatureCache(tmp_path / "cache"))
    assert again._model is None, "a cached feature loads no model"
    assert table.values.tobytes() == first[0].values.tobytes()
    assert files == {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.npy")}


def remote(folder: Path) -> Path:
    """A folder as Baichuan-13B's: its classes are Python files in it."""
    names = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "baichuan", "auto_map": names}))
    (folder / "configuration_x.py").write_text("raise SystemExit('code of the folder was run')")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    return folder


def harm(folder: Path, how: str) -> None:
    if how == "tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "pointer":
        text = "version https://git-lfs.github.com/spec/v1\n"
        (folder / "model.safetensors").write_text(text)


@pytest.mark.parametrize(
    ("how", "told"), [("remote", "custom code"), ("tokenizer", "token"), ("pointer", "Git LFS")]
)
def test_every_model_is_opened_before_the_first_feature_is_computed(tmp_path, how, told):
    sound = np.stack([tone(0.5)])
    clips = [Clip("a", write_video(tmp_path / "a.mp4", 8, audio=sound), subtitle="go away")]
    text = remote(tmp_path / "m") if how == "remote" else text_model(tmp_path / "m", "bert")
    harm(text, how)
    speech = speech_model(tmp_path / "hubert", "hubert-layer")
    features = [
        FeatureParams(kind="audio_model", model=str(speech), device="cpu"),
        FeatureParams(kind="text_model", model=str(text), device="cpu"),
        FeatureParams(kind="voice"),
    ]
    with pytest.raises(MissingModelError, match=f"features: {tmp_path}/m(.|\n)*{told}"):
        feature_tables(clips, features, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/**/*.npy")), "nothing was computed"


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def test_weights_that_want_to_run_code_are_refused_in_words(tmp_path):
    folder = text_model(tmp_path / "m", "bert")
    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    extractor = open_extractor(FeatureParams(kind="text_model", model=str(folder), device="cpu"))
    with pytest.raises(MissingModelError) as caught:
        extractor.extract(["go"])
    assert str(caught.value).startswith(f"{folder}: ")
    assert "posix.system" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_other_weights_are_another_identity(tmp_path):
    one = text_model(tmp_path / "one", "bert")
    params = FeatureParams(kind="text_model", model=str(one))
    before = open_extractor(params).identity
    assert before == open_extractor(params).identity
    file = one / "config.json"
    file.write_text(file.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-5'))
    assert open_extractor(params).identity != before


@pytest.mark.parametrize("kind", ["audio_model", "visual_model", "text_model"])
def test_a_missing_model_is_named(tmp_path, kind):
    with pytest.raises(MissingModelError, match="no such model folder"):
        open_extractor(FeatureParams(kind=kind, model=str(tmp_path / "nope")))
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(MissingModelError, match="empty"):
        open_extractor(FeatureParams(kind=kind, model=str(folder), device="cpu")).extract(["x"])
