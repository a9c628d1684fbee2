"""Every published tensor has one place in the native model, at tiny and at full size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emolib.errors import DataError
from emolib.models.internvl import mapping, settings
from emolib.rehearsal.internvl_files import (
    TINY,
    TINY_300M,
    V1_5_26B,
    V2_8B,
    published_config,
    published_shapes,
)
from tests.shared import shared

HEADS = mapping.Heads(query=4, key_value=2, size=8)


@pytest.mark.parametrize(
    "size", [TINY, TINY_300M, V2_8B, V1_5_26B], ids=["tiny", "tiny-300m", "8b", "26b"]
)
def test_every_key_and_shape_is_mapped(size):
    config = published_config(size)
    settings.check(config)
    targets = mapping.expected_targets(settings.native(config, image_token_id=7))
    made = {}
    for name, shape in published_shapes(config).items():
        move = mapping.plan(name, settings.heads(config))
        for target, part in zip(move.targets, move.shapes(shape), strict=True):
            assert target not in made
            made[target] = part
    assert made == targets


def test_full_size_has_the_published_number_of_parameters():
    shapes = published_shapes(published_config(V1_5_26B))
    total = sum(torch.Size(s).numel() for s in shapes.values())
    assert total == pytest.approx(25.5e9, rel=0.01)  # "26B": 5.5 ViT, 0.1 projector, 19.9 LLM
    assert len(shapes) == 934
    heads = settings.heads(published_config(V1_5_26B))
    assert sum(len(mapping.plan(name, heads).targets) for name in shapes) == 1120


def test_generated_names_are_the_published_ones():
    import json

    folder = shared("golden/internvl_v15/checkpoint")
    config = json.loads((folder / "config.json").read_text())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(published_shapes(config)) == set(index["weight_map"])


@given(
    key_value=st.integers(1, 4),
    group=st.integers(1, 4),
    size=st.integers(1, 5),
    width=st.integers(1, 3),
)
def test_wqkv_is_taken_apart_as_it_was_fused(key_value, group, size, width):
    heads = mapping.Heads(key_value * group, key_value, size)
    q = torch.rand(heads.query, size, width)
    k, v = torch.rand(2, key_value, size, width)
    rows = []
    for kv in range(key_value):  # row of (kv, slot, d) = (kv * (group + 2) + slot) * size + d
        rows += [*q[kv * group : (kv + 1) * group], k[kv], v[kv]]
    got = mapping.split_wqkv(torch.cat(rows), heads)
    assert torch.equal(got[0], q.reshape(-1, width))
    assert torch.equal(got[1], k.reshape(-1, width))
    assert torch.equal(got[2], v.reshape(-1, width))


def test_wqkv_of_other_heads_is_refused():
    with pytest.raises(DataError, match="does not fit"):
        mapping.split_wqkv(torch.zeros(12, 3), HEADS)


def test_norms_and_scales_keep_their_names():
    """Swapping these would not change shapes, some not even the output."""
    at = "vision_model.encoder.layers.3"
    to = "vision_tower.encoder.layer.3"
    expected = {
        f"{at}.attn.q_norm.weight": f"{to}.attention.q_norm.weight",
        f"{at}.attn.k_norm.weight": f"{to}.attention.k_norm.weight",
        f"{at}.norm1.weight": f"{to}.layernorm_before.weight",
        f"{at}.norm2.weight": f"{to}.layernorm_after.weight",
        f"{at}.ls1": f"{to}.lambda_1",
        f"{at}.ls2": f"{to}.lambda_2",
    }
    assert {name: mapping.plan(name, HEADS).targets[0] for name in expected} == expected


@pytest.mark.parametrize(
    "name",
    [
        "language_model.base_model.model.layers.0.attention.wqkv.lora_A.default.weight",
        "language_model.model.layers.0.attention.wqkv",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "vision_model.encoder.layers.x.ls1",
        "mlp1.2.weight",
    ],
)
def test_unknown_tensors_are_refused(name):
    with pytest.raises(DataError, match="unknown tensor"):
        mapping.plan(name, HEADS)


def test_computed_buffers_are_ignored_with_a_reason():
    move = mapping.plan("language_model.model.layers.0.attention.rotary_emb.inv_freq", HEADS)
    assert not move.targets
    assert move.ignored


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "internvl"),
        ("select_layer", -4),
        ("ps_version", "v1"),
        ("pad2square", True),
        ("use_llm_lora", 16),
        ("use_thumbnail", False),
        ("quantization_config", {"bits": 4}),
        ("llm_config", {"architectures": ["Qwen2ForCausalLM"]}),
    ],
)
def test_configurations_without_a_native_form_are_refused(key, value):
    with pytest.raises(DataError, match="config.json"):
        settings.check(published_config(TINY) | {key: value})


@pytest.mark.parametrize("key", ["model_type", "ps_version", "use_thumbnail", "llm_config"])
def test_what_a_configuration_does_not_say_is_the_published_codes_default(key):
    """``ps_version`` v1, no thumbnail: not what converts."""
    config = published_config(TINY)
    del config[key]
    with pytest.raises(DataError, match=key):
        settings.check(config)
    config = published_config(TINY)
    del config["max_dynamic_patch"]
    assert settings.max_tiles(config) == 6


@pytest.mark.parametrize(
    ("part", "key"), [("vision_config", "qk_normalization"), ("llm_config", "vocab_size")]
)
def test_configurations_with_gaps_are_refused_by_name(part, key):
    config = published_config(TINY)
    del config[part][key]
    with pytest.raises(DataError, match=f"{part} has no {key}"):
        settings.check(config)
