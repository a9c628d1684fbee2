"""Published-style InternVL-Chat folders with random weights, made at test time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from emolib.rehearsal.words import PIECES as PHRASES

SPECIAL = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>")
BEYOND = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>")
PIECES = 512  # of the trained sentencepiece model, six [UNUSED_TOKEN_n] included
VOCABULARY = PIECES + len(BEYOND) + 2  # <box>, </box>

# Published dimensions of OpenGVLab/InternVL2-26B, which has V1.5's own towers
# (InternViT-6B-448px-V1-5 and internlm2-chat-20b), and of InternVL2-8B (InternViT-300M-448px
# and internlm2_5-7b-chat).
V1_5_26B: dict[str, dict[str, Any]] = {
    "vision": {
        "hidden_size": 3200, "num_hidden_layers": 45, "num_attention_heads": 25,
        "intermediate_size": 12800, "norm_type": "rms_norm", "qk_normalization": True,
        "qkv_bias": False, "image_size": 448, "initializer_factor": 0.1,
    },
    "llm": {
        "hidden_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 48,
        "num_key_value_heads": 8, "intermediate_size": 16384, "vocab_size": 92553,
        "max_position_embeddings": 32768, "rope_scaling": {"factor": 3.0, "type": "dynamic"},
    },
}  # fmt: skip
V2_8B = {
    "vision": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096, "norm_type": "layer_norm", "qk_normalization": False,
        "qkv_bias": True, "image_size": 448, "initializer_factor": 1.0,
    },
    "llm": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 92553,
        "max_position_embeddings": 32768, "rope_scaling": {"factor": 2.0, "type": "dynamic"},
    },
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "vision": V1_5_26B["vision"]
    | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
       "intermediate_size": 24, "image_size": 56},
    "llm": V1_5_26B["llm"]
    | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
       "num_key_value_heads": 2, "intermediate_size": 40, "vocab_size": VOCABULARY,
       "max_position_embeddings": 20000},
}  # fmt: skip
TINY_300M = {
    "vision": TINY["vision"]
    | {"norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True},
    "llm": TINY["llm"],
}


def published_config(size: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The published config.json of a model of these sizes."""
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": size["vision"]["image_size"],
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False,
            "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 1000000,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
            "tie_word_embeddings": False, **size["llm"],
        },
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2-chat",
        "torch_dtype": "bfloat16",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": {
            "model_type": "intern_vit_6b", "hidden_act": "gelu", "layer_norm_eps": 1e-06,
            "patch_size": 14, "num_channels": 3, "attention_dropout": 0.0, "dropout": 0.0,
            "drop_path_rate": 0.0, **size["vision"],
        },
    }  # fmt: skip


def published_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published checkpoint, in its order."""
    v, m = config["vision_config"], config["llm_config"]
    h, p, hidden = v["hidden_size"], v["patch_size"], m["hidden_size"]
    size = m["hidden_size"] // m["num_attention_heads"]
    fused = (m["num_attention_heads"] + 2 * m["num_key_value_heads"]) * size
    out: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, h),
        "vision_model.embeddings.patch_embedding.bias": (h,),
        "vision_model.embeddings.patch_embedding.weight": (h, 3, p, p),
        "vision_model.embeddings.position_embedding": (1, (v["image_size"] // p) ** 2 + 1, h),
    }
    for i in range(v["num_hidden_layers"]):
        at = f"vision_model.encoder.layers.{i}"
        if v["qk_normalization"]:
            out[f"{at}.attn.k_norm.weight"] = out[f"{at}.attn.q_norm.weight"] = (h,)
        out |= {f"{at}.attn.proj.bias": (h,), f"{at}.attn.proj.weight": (h, h)}
        if v["qkv_bias"]:
            out[f"{at}.attn.qkv.bias"] = (3 * h,)
        out |= {f"{at}.attn.qkv.weight": (3 * h, h), f"{at}.ls1": (h,), f"{at}.ls2": (h,)}
        wide = v["intermediate_size"]
        out |= {f"{at}.mlp.fc1.bias": (wide,), f"{at}.mlp.fc1.weight": (wide, h)}
        out |= {f"{at}.mlp.fc2.bias": (h,), f"{at}.mlp.fc2.weight": (h, wide)}
        for norm in ("norm1", "norm2"):
            out[f"{at}.{norm}.weight"] = (h,)
            if v["norm_type"] == "layer_norm":
                out[f"{at}.{norm}.bias"] = (h,)
    out["language_model.model.tok_embeddings.weight"] = (m["vocab_size"], hidden)
    for i in range(m["num_hidden_layers"]):
        at = f"language_model.model.layers.{i}"
        wide = m["intermediate_size"]
        out |= {
            f"{at}.attention.wqkv.weight": (fused, hidden),
            f"{at}.attention.wo.weight": (hidden, hidden),
            f"{at}.feed_forward.w1.weight": (wide, hidden),
            f"{at}.feed_forward.w2.weight": (hidden, wide),
            f"{at}.feed_forward.w3.weight": (wide, hidden),
            f"{at}.attention_norm.weight": (hidden,),
            f"{at}.ffn_norm.weight": (hidden,),
        }
    out["language_model.model.norm.weight"] = (hidden,)
    out["language_model.output.weight"] = (m["vocab_size"], hidden)
    for part, shape in (("0", (4 * h,)), ("1", (hidden, 4 * h)), ("3", (hidden, hidden))):
        out[f"mlp1.{part}.weight"] = shape
        out[f"mlp1.{part}.bias"] = shape[:1]
    return out


@cache
def sentencepiece_model(
    dummy_prefix: bool = False, pieces: int = PIECES, more: tuple[str, ...] = ()
) -> bytes:
    """A small BPE model of InternLM2's kind: byte fallback, split digits, Chinese, spaces.

    Args:
        dummy_prefix: Put a space before every text.
        pieces: Size of the vocabulary; what the small model lacks are unused pieces.
        more: Further pieces, which no text is ever cut into.
    """
    import io

    import sentencepiece

    rng = random.Random(0)
    text = """you are an ai assistant whose name is InternLM describe the image in detail what
    emotion does the person show happy sad angry surprised video frames expression 书生 浦语
    表情 高兴 悲伤 他 她 说 我 没事 请 描述 画面 人物 for while return def class"""
    words = text.split()
    lines = [
        rng.choice(("", "  ", "    ")) + rng.choice((" ", "")).join(rng.choices(words, k=9)) + "."
        for _ in range(800)
    ]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe",
        vocab_size=PIECES - 6, byte_fallback=True, split_digits=True,
        character_coverage=1.0, normalization_rule_name="identity",
        add_dummy_prefix=dummy_prefix, remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, hard_vocab_limit=True, num_threads=1,
        minloglevel=2,
    )  # fmt: skip
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    model.ParseFromString(out.getvalue())
    for text in more:
        model.pieces.add(piece=text.replace(" ", "▁"), score=-1e6, type=1)
    for n in range(pieces - 6 - len(model.pieces)):
        model.pieces.add(piece=f"[FILLER_{n}]", score=-1e6, type=5)
    for n in range(6):
        model.pieces.add(piece=f"[UNUSED_TOKEN_{141 + n}]", score=-1000.0 - n, type=5)
    return model.SerializeToString()


def write_tokenizer(
    folder: Path, dummy_prefix: bool = False, pieces: int = PIECES, more: tuple[str, ...] = ()
) -> None:
    """Write tokenizer.model and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(dummy_prefix, pieces, more))
    names = {pieces - 6 + i: t for i, t in enumerate((*SPECIAL, "<|im_start|>"))}
    names |= {pieces + i: t for i, t in enumerate((*BEYOND, "<box>", "</box>"))}
    rows = {str(n): {"content": t, "special": True} for n, t in names.items()}
    config = {"added_tokens_decoder": rows, "model_max_length": 8192}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_source(
    folder: Path,
    size: dict[str, dict[str, Any]] = TINY,
    shards: int = 3,
    pieces: int = PIECES,
    speak: Callable[[dict[str, torch.Tensor], bytes], None] | None = None,
    **changes: object,
) -> Path:
    """Write a published-style folder; ``changes`` go into its config.json.

    Args:
        folder: Where.
        size: Widths, depths, vocabulary.
        shards: Weight files.
        pieces: Size of the sentencepiece vocabulary.
        speak: Changes the weights before they are written; also gets tokenizer.model.
        **changes: Go into config.json.
    """
    more = tuple(PHRASES) if speak else ()
    write_tokenizer(folder, pieces=pieces, more=more)
    config = published_config(size)
    shapes = list(published_shapes(config).items())
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.rand(s, generator=generator) - 0.5 for n, s in shapes} if speak else {}
    if speak:
        speak(drawn, (folder / "tokenizer.model").read_bytes())
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = dict(shapes[number::shards])
        tensors = {
            n: (drawn[n] if speak else torch.rand(s, generator=generator) - 0.5).to(torch.bfloat16)
            for n, s in part.items()
        }
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        if shards == 1:
            name = "model.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    if shards > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder
