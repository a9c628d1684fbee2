"""Cached features of the frozen towers: equal, checked, never mixed up."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from emolib.errors import DataError  # noqa: E402
from emolib.models.affectgpt.cache import (  # noqa: E402
    FeatureCache,
    compute_features,
    pack_frames,
    tower_identity,
)
from emolib.models.affectgpt.prompts import AUDIO, VIDEO  # noqa: E402
from tests.affectgpt_tiny import clip, sound, tiny_config, tiny_model, tiny_processor  # noqa: E402

VIDEOS = {"a": clip(1), "b": clip(2)[0], "c": clip(3, 20)}  # a short one, a still, a long one
SOUNDS = {"a": sound(1), "c": sound(3)}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_config())


@pytest.fixture
def cache(tmp_path, model, processor):
    cache = FeatureCache(tmp_path / "cache", tower_identity(model, processor))
    for kind, media in (("video", VIDEOS), ("audio", SOUNDS)):
        pairs = [(name, lambda array=array: array) for name, array in media.items()]
        assert compute_features(cache, model, processor, kind, pairs) == len(media)
    return cache


def test_cached_loss_is_the_uncached_loss(cache, model, processor):
    batch = processor(
        [VIDEO + AUDIO, VIDEO, VIDEO + AUDIO],
        videos=list(VIDEOS.values()),
        audio=[SOUNDS.get(name) for name in VIDEOS],
        answers=["x", "yy", "z"],
    )
    assert batch["video_mask"].sum(1).tolist() == [8, 1, 8]
    with torch.no_grad():
        direct = model(**batch).loss
        for name in ("pixel_values_videos", "video_mask", "input_features"):
            del batch[name]
        cached = model(
            **batch,
            **pack_frames([cache.get("video", name) for name in VIDEOS]),
            clip_features=torch.stack([cache.get("audio", name) for name in SOUNDS]),
        ).loss
    assert cached.item() == pytest.approx(direct.item(), abs=1e-6)


def test_nothing_is_decoded_or_computed_twice(cache, model, processor):
    def never():
        raise AssertionError("decoded again")

    pairs = [(name, never) for name in VIDEOS]
    assert compute_features(cache, model, processor, "video", pairs) == 0
    assert cache.get("video", "unknown") is None
    again = FeatureCache(cache.folder)
    assert torch.equal(again.get("audio", "a"), cache.get("audio", "a"))


def test_damage_is_found(cache):
    path = cache.path("video", "a")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="its hash does not fit"):
        FeatureCache(cache.folder).get("video", "a")
    path.write_bytes(raw[:100])
    with pytest.raises(DataError, match="damaged"):
        FeatureCache(cache.folder).get("video", "a")


def test_other_towers_or_sampling_need_another_folder(cache, model, processor):
    other = tiny_model(seed=1)
    with pytest.raises(DataError, match="towers differ"):
        FeatureCache(cache.folder, tower_identity(other, processor))
    trained = tiny_model()
    with torch.no_grad():
        trained.video_branch.projection.weight.add_(1)
    FeatureCache(cache.folder, tower_identity(trained, processor))
    compat = tiny_processor(tiny_config(), reference_compat=True)
    with pytest.raises(DataError, match="preprocessing differ"):
        FeatureCache(cache.folder, tower_identity(model, compat))
    with pytest.raises(DataError, match="no features cached here"):
        FeatureCache(cache.folder / "elsewhere")


def changed(model, part: str, key: str, value: object):
    """The same weights, read otherwise."""
    config = model.config.to_dict()
    config[part][key] = value
    other = type(model)(type(model.config).from_dict(config))
    other.load_state_dict(model.state_dict())
    return other.eval()


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("audio_config", "logit_scale", 10.0),
        ("audio_config", "num_attention_heads", 4),
        ("vision_config", "num_attention_heads", 4),
        ("vision_config", "hidden_act", "relu"),
        ("image_qformer_config", "layer_norm_eps", 1e-3),
    ],
)
def test_equal_weights_read_otherwise_are_other_towers(
    cache, model, processor, tmp_path, part, key, value
):
    other = changed(model, part, key, value)
    identity = tower_identity(other, processor)
    with pytest.raises(DataError, match="of another model or sampling .configurations differ"):
        FeatureCache(cache.folder, identity)
    kind = "audio" if part == "audio_config" else "video"
    medium = {"video": VIDEOS, "audio": SOUNDS}[kind]["a"]
    fresh = FeatureCache(tmp_path / "fresh", identity)
    compute_features(fresh, other, processor, kind, [("a", lambda: medium)])
    assert not torch.allclose(fresh.get(kind, "a"), cache.get(kind, "a"), atol=1e-3)


def test_features_of_another_rule_of_decoding_do_not_count(cache, model, processor, monkeypatch):
    monkeypatch.setattr("emolib.models.affectgpt.cache.DECODING", 99)
    with pytest.raises(DataError, match="decoding differ"):
        FeatureCache(cache.folder, tower_identity(model, processor))


def test_how_a_model_is_loaded_is_no_other_model(cache, model, processor, tmp_path):
    model.save_pretrained(tmp_path / "model")
    loaded = type(model).from_pretrained(tmp_path / "model", attn_implementation="eager")
    assert loaded.config.audio_config.dtype != model.config.audio_config.dtype
    FeatureCache(cache.folder, tower_identity(loaded, processor))
