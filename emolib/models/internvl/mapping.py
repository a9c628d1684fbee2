"""Which published tensor becomes which native one, and how its rows are arranged.

The published ``internvl_chat`` layout is InternViT + ``mlp1`` + InternLM2; the native one is
``InternVLForConditionalGeneration`` with a Llama text model. Every source tensor fills one or
three targets; nothing is mixed, so a shard can be converted without the others.

Source: InternVL 2410d1d (``modeling_intern_vit.py``, ``modeling_internlm2.py``) and
transformers 5.19 (``models/internvl``, ``models/llama``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emolib.errors import DataError

if TYPE_CHECKING:
    import torch

Split = Callable[["torch.Tensor"], tuple["torch.Tensor", ...]]

# Buffers that some exports carry along; they are computed from the configuration.
_IGNORED = (
    (re.compile(r".*\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$"), "computed from the config"),
    (re.compile(r"vision_model\.embeddings\.position_ids$"), "computed from the config"),
)

_VIT, _LLM = "vision_tower", "language_model.model"
_PLAIN = {
    "vision_model.embeddings.class_embedding": f"{_VIT}.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": f"{_VIT}.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding": f"{_VIT}.embeddings.patch_embeddings.projection",
    "mlp1.0": "multi_modal_projector.layer_norm",
    "mlp1.1": "multi_modal_projector.linear_1",
    "mlp1.3": "multi_modal_projector.linear_2",
    "language_model.model.tok_embeddings": f"{_LLM}.embed_tokens",
    "language_model.model.norm": f"{_LLM}.norm",
    "language_model.output": "language_model.lm_head",
}
_VIT_LAYER = {
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_LLM_LAYER = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_LAYER = re.compile(
    r"(vision_model\.encoder|language_model\.model)\.layers\.(\d+)\.(.+?)(\.weight|\.bias)?"
)


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of the language model, which fix the order of ``wqkv``'s rows.

    Attributes:
        query: Number of query heads.
        key_value: Number of key (and of value) heads; divides ``query``.
        size: Width of one head.
    """

    query: int
    key_value: int
    size: int


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of one source tensor.

    Attributes:
        targets: Native names as ``save_pretrained`` writes them, in the order ``split`` gives.
        split: Cuts the source tensor into the targets' tensors; None moves it unchanged.
        ignored: Reason why the tensor is left out; then ``targets`` is empty.
    """

    targets: tuple[str, ...]
    split: Split | None = None
    ignored: str = ""

    def parts(self, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The targets' tensors; none when the tensor is ignored."""
        if self.split is not None:
            return self.split(tensor)
        return (tensor,) * len(self.targets)

    def shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The targets' shapes for a source tensor of ``shape``."""
        import torch

        return tuple(tuple(p.shape) for p in self.parts(torch.empty(shape, device="meta")))


def plan(name: str, heads: Heads) -> Move:
    """Say what becomes of the source tensor ``name``.

    Raises:
        DataError: a name this layout does not have.
    """
    for pattern, reason in _IGNORED:
        if pattern.match(name):
            return Move((), ignored=reason)
    stem, _, leaf = name.rpartition(".")
    if leaf in ("weight", "bias") and stem in _PLAIN:
        return Move((f"{_PLAIN[stem]}.{leaf}",))
    if name in _PLAIN:
        return Move((_PLAIN[name],))
    if found := _LAYER.fullmatch(name):
        tower, number, part, leaf = found[1], found[2], found[3], found[4] or ""
        if tower.startswith("vision"):
            at, names = f"{_VIT}.encoder.layer.{number}", _VIT_LAYER
            if part == "attn.qkv" and leaf:
                return Move(tuple(f"{at}.attention.{p}_proj{leaf}" for p in "qkv"), _split_thirds)
        else:
            at, names = f"{_LLM}.layers.{number}", _LLM_LAYER
            if part == "attention.wqkv" and leaf:
                targets = tuple(f"{at}.self_attn.{p}_proj{leaf}" for p in "qkv")
                return Move(targets, lambda fused: split_wqkv(fused, heads))
        if part in names:
            return Move((f"{at}.{names[part]}{leaf}",))
    raise DataError(
        f"unknown tensor {name!r}: not an InternVL-Chat checkpoint with InternLM2 "
        "(LoRA weights must be merged and quantised ones restored first)"
    )


def _split_thirds(fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """InternViT: rows are all of q, then all of k, then all of v."""
    return tuple(fused.chunk(3, dim=0))


def split_wqkv(fused: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, ...]:
    """Take InternLM2's fused projection apart.

    Args:
        fused: [(query + 2 * key_value) * size, ...]; for every key head in turn the rows of
            its query heads, then of the key, then of the value.
        heads: The model's heads.

    Returns:
        q [query * size, ...], k and v [key_value * size, ...]; query head ``kv * G + g`` is
        row group g of key head kv, which is Llama's order.

    Raises:
        DataError: the row count does not fit ``heads``.
    """
    group = heads.query // heads.key_value
    rows, rest = fused.shape[0], tuple(fused.shape[1:])
    if rows != (heads.query + 2 * heads.key_value) * heads.size:
        raise DataError(f"wqkv has {rows} rows, which does not fit {heads}")
    parts = fused.reshape(heads.key_value, group + 2, heads.size, *rest)
    q, k, v = parts[:, :group], parts[:, group], parts[:, group + 1]
    return tuple(part.reshape(-1, *rest) for part in (q, k, v))


def expected_targets(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names (as ``save_pretrained`` writes them) and shapes of a native model's tensors.

    Builds the model without memory (meta device), so it also works at full size.
    """
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    with torch.device("meta"):
        model = InternVLForConditionalGeneration(InternVLConfig(**config))
    return {saved_name(k): tuple(v.shape) for k, v in model.state_dict().items()}


def saved_name(name: str) -> str:
    """Name in the file of the tensor that the model in memory calls ``name``."""
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.", 1)
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    return name.removeprefix("model.")
