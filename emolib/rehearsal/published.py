"""Published configuration values, and the same with small widths and depths."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from emolib.assets import published

WIDTH = 32
LAYERS = 2
HEADS = 2
EXPERTS = 4

# Keys of sizes, by what they become. Everything else stays as published: vocabularies, image,
# patch and window sizes, mel bins, positions, rope, normalization, special-token ids.
_WIDTHS = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "embed_dim", "out_hidden_size", "output_dim", "projection_dim"),
        WIDTH,
    ),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"), 2 * WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), WIDTH),
    "downsample_hidden_size": WIDTH // 2,
    "head_dim": WIDTH // HEADS,
}
_DEPTHS = dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers", "depth"), LAYERS)
_HEADS = dict.fromkeys(
    ("num_attention_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
    HEADS,
)
_SMALL = _WIDTHS | _DEPTHS | _HEADS | {"num_experts": EXPERTS, "num_experts_per_tok": 2}
# Parts that the project never loads keep their published sizes: no weights are made for them.
_UNTOUCHED = ("talker_config", "token2wav_config", "code2wav_config")
# A language model's configuration may leave its class's defaults out.
_TEXT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def entry_of(name: str) -> tuple[str, dict[str, Any]] | None:
    """Find a published model by hub id or by the last part of one, as folders are called.

    Returns:
        Hub id and entry; None when nothing is known of such a model.
    """
    models: dict[str, Any] = published()["models"]
    if name in models:
        return name, models[name]
    for hub_id, entry in models.items():
        if hub_id.rpartition("/")[2] == name:
            return hub_id, entry
    return None


def shrink(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a published config.json with small widths and depths; all else stays.

    Grouped queries stay grouped, rope sections stay in proportion, and lists of layers name
    layers that are left.
    """
    small = copy.deepcopy(dict(config))
    _shrink(small)
    text = small.get("text_config")
    if isinstance(text, dict):
        _complete(text)
    return small


def _complete(text: dict[str, Any]) -> None:
    for key in _TEXT:
        text.setdefault(key, _SMALL[key])
    if text.get("model_type") == "qwen2":  # whose default is not the number of heads
        text.setdefault("num_key_value_heads", HEADS)


def _shrink(part: dict[str, Any]) -> None:
    grouped = part.get("num_key_value_heads", 0) < part.get("num_attention_heads", 0)
    for key, value in part.items():
        if isinstance(value, dict):
            if key not in _UNTOUCHED:
                _shrink(value)
        elif key == "num_key_value_heads":
            part[key] = HEADS // 2 if grouped else HEADS
        elif key in ("fullatt_block_indexes", "deepstack_visual_indexes"):
            part[key] = [LAYERS - 1] if key.startswith("full") else list(range(LAYERS))
        elif key == "mrope_section":
            part[key] = _in_proportion(value, WIDTH // HEADS // 2)
        elif key == "conv_dim":
            part[key] = [WIDTH // 2] * len(value)
        elif key == "layer_types":
            part[key] = value[:LAYERS]
        elif key in _SMALL and isinstance(value, int):
            part[key] = _SMALL[key]


def _in_proportion(sections: list[int], total: int) -> list[int]:
    parts = [section * total // sum(sections) for section in sections]
    parts[0] += total - sum(parts)
    return parts


def dtype_of(config: Mapping[str, Any], default: str = "bfloat16") -> str:
    """Stored weight type of a published configuration, as torch names it."""
    for part in (config, *(v for v in config.values() if isinstance(v, dict))):
        if dtype := part.get("dtype") or part.get("torch_dtype"):
            return str(dtype)
    return default
