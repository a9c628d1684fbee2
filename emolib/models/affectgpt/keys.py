"""Names in the published weight files, and what they are called here.

Pure text: no tensor is touched. A rule is a pattern and either the new name or the reason
why the tensor is left out. Files are recognised by their keys, because the public download
links of the two Video-LLaMA branches are swapped and file names say little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from emolib.errors import DataError

# What a file can be, with what a message calls it.
KINDS = {
    "eva": "EVA-ViT-g image tower (eva_vit_g.pth)",
    "blip2": "BLIP-2 Q-Former (blip2_pretrained_flant5xxl.pth)",
    "imagebind": "ImageBind (imagebind_huge.pth)",
    "video": "Video-LLaMA video branch (finetune-vicuna7b-v2.pth)",
    "audio": "Video-LLaMA audio branch (finetune_vicuna7b_audiobranch.pth)",
    "affectgpt": "AffectGPT training checkpoint",
    "llm": "language model folder",
}
# Later kinds override earlier ones, as the published code loads them.
ORDER = ("eva", "blip2", "llm", "imagebind", "video", "audio", "affectgpt")


@dataclass(frozen=True, slots=True)
class Routed:
    """Where one source tensor goes.

    Attributes:
        target: Parameter name in the converted model; "" when left out.
        part: "q" or "v" for the pieces of a joint query-key-value bias, else "".
        reason: Why the tensor is left out; "" when it is used.
    """

    target: str = ""
    part: str = ""
    reason: str = ""


def recognise(keys: Iterable[str], where: str) -> str:
    """Tell from its keys which published file this is: a key of :data:`KINDS`.

    Raises:
        DataError: none of them, or a later AffectGPT that has another architecture.
    """
    names = set(keys)

    def has(pattern: str) -> bool:
        found = re.compile(pattern)
        return any(found.match(name) for name in names)

    if has(r"(multi_llama_proj|video_attention_mlp|audio_attention_mlp|affectgpt_proj)\b"):
        raise DataError(
            f"{where}: an AffectGPT checkpoint of 2025 (another architecture: CLIP, HuBERT, "
            "pre-fusion); only the version of 2024 can be converted. An untrained one of that "
            "design: emolib convert affectgpt-2025"
        )
    if has(r".*lora_[AB]\."):
        raise DataError(f"{where}: holds LoRA weights, which the version of 2024 does not have")
    video, audio = has(r"video_Qformer\..*weight"), has(r"audio_Qformer\..*weight")
    if video or audio:
        return "affectgpt" if video and audio else "video" if video else "audio"
    if has(r"modality_trunks\.audio\."):
        return "imagebind"
    if has(r"patch_embed\.proj\.weight") and has(r"blocks\.0\.attn\.qkv\.weight"):
        return "eva"
    if "query_tokens" in names and has(r"Qformer\.bert\."):
        return "blip2"
    raise DataError(
        f"{where}: not one of the files this conversion knows ({'; '.join(KINDS.values())}). "
        f"It begins with {sorted(names)[:4]}"
    )


def route(kind: str, key: str, image_layers: int) -> Routed | None:
    """Find the place of one tensor; None when the key is unknown.

    Args:
        kind: A key of :data:`KINDS`.
        key: The name in the file.
        image_layers: Blocks of the image tower; further ones in the file are left out.
    """
    if kind == "llm":
        if key.endswith("rotary_emb.inv_freq"):
            return Routed(reason="buffer, computed when the model is built")
        return Routed(target=f"language_model.{key}")
    block = re.match(r"blocks\.(\d+)\.", key) if kind == "eva" else None
    if block and int(block[1]) >= image_layers:
        return Routed(reason=f"the published model uses the first {image_layers} blocks only")
    for pattern, replacement in _RULES[kind]:
        if match := re.fullmatch(pattern, key):
            if replacement.startswith("!"):
                return Routed(reason=replacement[1:])
            return Routed(target=_finished(match.expand(replacement)), part=_part(key))
    return None


def _part(key: str) -> str:
    return {"q_bias": "q", "v_bias": "v"}.get(key.rpartition(".")[2], "")


def _finished(target: str) -> str:
    """Rename what all Q-Formers share."""
    if "qformer" not in target:
        return target
    target = target.replace(".embeddings.LayerNorm.", ".layernorm.")
    return target.replace("attention.self.", "attention.attention.")


_STRAY = (
    (r".*\.position_ids", "!buffer, computed when the model is built"),
    (r".*rotary_emb\.inv_freq", "!buffer, computed when the model is built"),
    (r"audio_encoder\..*(mask|log_logit_scale)", "!buffer of a frozen tower, kept by the trainer"),
)
_FROZEN_COPY = (
    (
        r"(visual_encoder|ln_vision|Qformer|query_tokens|llama_model|audio_encoder)(\..*)?",
        "!copy of a frozen part, taken from its own file",
    ),
)
_BRANCH = {
    branch: (
        (rf"{branch}_query_tokens", rf"{branch}_branch.qformer.query_tokens"),
        (rf"{branch}_Qformer\.bert\.(.*)", rf"{branch}_branch.qformer.\1"),
        (rf"{position}\.(weight)", rf"{branch}_branch.position_embedding.\1"),
        (rf"{projection}\.(weight|bias)", rf"{branch}_branch.projection.\1"),
    )
    for branch, position, projection in (
        ("video", "video_frame_position_embedding", "llama_proj"),
        ("audio", "audio_position_embedding", "audio_llama_proj"),
    )
}
_EVA_BLOCK = r"blocks\.(\d+)\."
_EVA_LAYER = r"vision_tower.encoder.layers.\1."
_AUDIO_BLOCK = r"modality_trunks\.audio\.blocks\.(\d+)\."
_AUDIO_LAYER = r"audio_tower.layers.\1."
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "eva": (
        (r"cls_token", "vision_tower.embeddings.class_embedding"),
        (r"pos_embed", "vision_tower.embeddings.position_embedding"),
        (r"patch_embed\.proj\.(.*)", r"vision_tower.embeddings.patch_embedding.\1"),
        (_EVA_BLOCK + r"norm([12])\.(.*)", _EVA_LAYER + r"layer_norm\2.\3"),
        (_EVA_BLOCK + r"attn\.[qv]_bias", _EVA_LAYER + r"self_attn.qkv.bias"),
        (_EVA_BLOCK + r"attn\.qkv\.weight", _EVA_LAYER + r"self_attn.qkv.weight"),
        (_EVA_BLOCK + r"attn\.proj\.(.*)", _EVA_LAYER + r"self_attn.projection.\2"),
        (_EVA_BLOCK + r"mlp\.(fc[12])\.(.*)", _EVA_LAYER + r"mlp.\2.\3"),
        (r"(norm|fc_norm|head|lm_head)\..*", "!classification head, not used"),
        (r"(mask_token|rel_pos_bias\..*)", "!pre-training only"),
    ),
    "blip2": (
        *_STRAY,
        (r"query_tokens", "image_qformer.query_tokens"),
        (r"ln_vision\.(.*)", r"vision_tower.post_layernorm.\1"),
        (r"Qformer\.bert\.embeddings\.(word|position)_.*", "!text input of the Q-Former, not used"),
        (
            r"Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..*",
            "!text input of the Q-Former, not used",
        ),
        (r"Qformer\.bert\.(.*)", r"image_qformer.\1"),
        (r"Qformer\.cls\..*", "!text output of the Q-Former, not used"),
        (r"(t5_proj|opt_proj|llm_proj)\..*", "!projection to another language model"),
        (r"(vision_proj|text_proj|itm_head)\..*|temp", "!BLIP-2 pre-training head"),
        (r"(visual_encoder|t5_model|opt_model)\..*", "!copy of a frozen part"),
    ),
    "imagebind": (
        (
            r"modality_preprocessors\.audio\.cls_token",
            "audio_tower.embeddings.cls_token",
        ),
        (
            r"modality_preprocessors\.audio\.rgbt_stem\.proj\.weight",
            "audio_tower.embeddings.projection.weight",
        ),
        (
            r"modality_preprocessors\.audio\.rgbt_stem\.norm_layer\.(.*)",
            r"audio_tower.embeddings.norm.\1",
        ),
        (
            r"modality_preprocessors\.audio\.pos_embedding_helper\.pos_embed",
            "audio_tower.embeddings.position_embedding",
        ),
        (_AUDIO_BLOCK + r"attn\.in_proj_(weight|bias)", _AUDIO_LAYER + r"attention.qkv.\2"),
        (_AUDIO_BLOCK + r"attn\.(bias_[kv])", _AUDIO_LAYER + r"attention.\2"),
        (_AUDIO_BLOCK + r"attn\.out_proj\.(.*)", _AUDIO_LAYER + r"attention.projection.\2"),
        (_AUDIO_BLOCK + r"norm_([12])\.(.*)", _AUDIO_LAYER + r"norm\2.\3"),
        (_AUDIO_BLOCK + r"mlp\.(fc[12])\.(.*)", _AUDIO_LAYER + r"\2.\3"),
        (r"modality_heads\.audio\.0\.(.*)", r"audio_tower.norm.\1"),
        (r"modality_heads\.audio\.2\.weight", "audio_tower.projection.weight"),
        (
            r"modality_postprocessors\.audio\.1\.log_logit_scale",
            "!constant, compared with the configuration",
        ),
        (r"modality_\w+\.(vision|text|depth|thermal|imu)\..*", "!another modality"),
    ),
    "video": (*_STRAY, *_BRANCH["video"], *_FROZEN_COPY),
    "audio": (*_STRAY, *_BRANCH["audio"], *_FROZEN_COPY),
    "affectgpt": (*_STRAY, *_BRANCH["video"], *_BRANCH["audio"], *_FROZEN_COPY),
}
