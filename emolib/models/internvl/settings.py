"""The published configuration, checked, and what the native model and processor need of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emolib.errors import DataError
from emolib.models.internvl.mapping import Heads

# What the native class does not have, or what would change the model silently: key -> the only
# value that converts, the published code's value where the key is missing (InternVL 2410d1d,
# configuration_internvl_chat.py).
_NEEDED: dict[str, tuple[object, object]] = {
    "model_type": ("internvl_chat", None),
    "select_layer": (-1, -1),
    "ps_version": ("v2", "v1"),
    "pad2square": (False, False),
    "use_backbone_lora": (0, 0),
    "use_llm_lora": (0, 0),
}
_NO_DEFAULT = {
    "vision_config": (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "image_size", "patch_size", "layer_norm_eps", "qkv_bias", "qk_normalization",
    ),
    "llm_config": (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "vocab_size", "max_position_embeddings", "rms_norm_eps",
    ),
}  # fmt: skip
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check(config: Mapping[str, Any]) -> None:
    """Refuse a published configuration that the native model cannot represent.

    Raises:
        DataError: names the key, its value and what would be accepted.
    """
    for key, (accepted, unsaid) in _NEEDED.items():
        if (value := config.get(key, unsaid)) != accepted:
            said = "" if key in config else " (not given)"
            raise DataError(f"config.json: {key} = {value!r}{said}; only {accepted!r} converts")
    for part in _NO_DEFAULT:
        if not isinstance(config.get(part), dict):
            raise DataError(f"config.json has no {part}: not an InternVL-Chat folder")
    llm = config["llm_config"]
    name = (llm.get("architectures") or ["unknown"])[0]
    if name != "InternLM2ForCausalLM":
        raise DataError(
            f"config.json: the language model is {name}; only InternLM2ForCausalLM converts "
            "(for Qwen2 and Llama models take the published -hf folders)"
        )
    for part, keys in _NO_DEFAULT.items():
        if missing := [key for key in keys if key not in config[part]]:
            raise DataError(f"config.json: {part} has no {', '.join(missing)}")
    if "quantization_config" in config or "quantization_config" in llm:
        raise DataError("config.json: the checkpoint is quantised; convert the full-precision one")
    if llm.get("tie_word_embeddings"):
        raise DataError("config.json: tied word embeddings; InternLM2 has an output layer")
    vision = config["vision_config"]
    if vision["qk_normalization"] and vision["layer_norm_eps"] != 1e-6:
        raise DataError("config.json: the native q/k norm has eps 1e-6, this checkpoint another")
    if not config.get("use_thumbnail", False) and max_tiles(config) > 1:
        raise DataError("config.json: use_thumbnail = false; the native processor always adds one")


def heads(config: Mapping[str, Any]) -> Heads:
    """Attention heads of the language model."""
    llm = config["llm_config"]
    query = llm["num_attention_heads"]
    return Heads(query, llm.get("num_key_value_heads", query), llm["hidden_size"] // query)


def tile_size(config: Mapping[str, Any]) -> int:
    """Side of a tile in pixels: ``force_image_size`` wins over the tower's own."""
    return int(config.get("force_image_size") or config["vision_config"]["image_size"])


def tokens_per_tile(config: Mapping[str, Any]) -> int:
    """Image tokens of one tile: 256 for 448 pixels."""
    side = tile_size(config) // config["vision_config"]["patch_size"]
    return int(side**2 * config.get("downsample_ratio", 0.5) ** 2)


def max_tiles(config: Mapping[str, Any]) -> int:
    """Most tiles an image is cut into, the thumbnail not counted; 1 = never cut."""
    return int(config.get("max_dynamic_patch", 6)) if config.get("dynamic_image_size") else 1


def native(config: Mapping[str, Any], image_token_id: int) -> dict[str, Any]:
    """Native ``config.json`` of a published one.

    Args:
        config: The published configuration, already through :func:`check`.
        image_token_id: Id of ``<IMG_CONTEXT>``.
    """
    vision, llm = config["vision_config"], config["llm_config"]
    dtype = config.get("torch_dtype") or llm.get("torch_dtype") or "bfloat16"
    rope: dict[str, Any] = {"rope_theta": float(llm.get("rope_theta", 10_000.0))}
    scaling = llm.get("rope_scaling")
    rope["rope_type"] = scaling.get("type") or scaling["rope_type"] if scaling else "default"
    if rope["rope_type"] not in ("default", "dynamic", "linear"):
        raise DataError(f"config.json: rope_scaling {scaling} is not InternLM2's")
    if scaling:
        rope["factor"] = float(scaling["factor"])
    head = heads(config)
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "dtype": dtype,
        "downsample_ratio": config.get("downsample_ratio", 0.5),
        "image_seq_length": tokens_per_tile(config),
        "image_token_id": image_token_id,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,  # the class defaults to True, which would ruin lm_head
        "vision_config": {
            "model_type": "internvl_vision",
            "dtype": dtype,
            "hidden_size": vision["hidden_size"],
            "num_hidden_layers": vision["num_hidden_layers"],
            "num_attention_heads": vision["num_attention_heads"],
            "intermediate_size": vision["intermediate_size"],
            "hidden_act": vision.get("hidden_act", "gelu"),
            "attention_bias": bool(vision["qkv_bias"]),
            "use_qk_norm": bool(vision["qk_normalization"]),
            "norm_type": vision.get("norm_type", "rms_norm"),
            "layer_norm_eps": vision["layer_norm_eps"],
            "image_size": [vision["image_size"]] * 2,
            "patch_size": [vision["patch_size"]] * 2,
            "num_channels": vision.get("num_channels", 3),
            "attention_dropout": vision.get("attention_dropout", 0.0),
            "hidden_dropout_prob": vision.get("dropout", 0.0),
            "layer_scale_init_value": vision.get("initializer_factor", 0.1),
            "use_mean_pooling": True,  # False would add a final norm with random weights
        },
        "text_config": {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "dtype": dtype,
            "hidden_size": llm["hidden_size"],
            "num_hidden_layers": llm["num_hidden_layers"],
            "num_attention_heads": head.query,
            "num_key_value_heads": head.key_value,
            "head_dim": head.size,
            "intermediate_size": llm["intermediate_size"],
            "hidden_act": llm.get("hidden_act", "silu"),
            "max_position_embeddings": llm["max_position_embeddings"],
            "rms_norm_eps": llm["rms_norm_eps"],
            "rope_parameters": rope,
            "attention_bias": bool(llm.get("bias", False)),
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "vocab_size": llm["vocab_size"],
            "bos_token_id": llm.get("bos_token_id", 1),
            "eos_token_id": llm.get("eos_token_id", 2),
            "pad_token_id": llm.get("pad_token_id", 2),
        },
    }


def image_processor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the native image processor: 448-pixel tiles and ImageNet statistics."""
    side = tile_size(config)
    return {
        "size": {"height": side, "width": side},
        "crop_to_patches": True,
        "min_patches": int(config.get("min_dynamic_patch", 1)),
        "max_patches": max_tiles(config),
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
