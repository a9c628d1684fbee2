"""A tiny random AffectGPT, its processor and inputs, made by code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaTokenizer

from emolib.models.affectgpt import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTProcessor,
)

# Threads cost far more than they bring at these sizes.
torch.set_num_threads(1)

DATA = Path(__file__).parent / "data" / "affectgpt"


def golden_config() -> AffectGPTConfig:
    """The sizes of the golden files (tests/data/affectgpt/config.json)."""
    sizes = json.loads((DATA / "config.json").read_text())

    def part(name: str, *keys: str) -> dict[str, Any]:
        common = (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        )
        return {key: sizes[name][key] for key in (*common, *keys)}

    qformer = ("cross_attention_frequency", "encoder_hidden_size")
    queries = {f"{m}_qformer": sizes[f"{m}_qformer"]["num_query_tokens"] for m in MODALITIES}
    return AffectGPTConfig(
        vision_config=part("vision", "image_size", "patch_size"),
        audio_config=part("audio", "output_size"),
        **{
            f"{name}_config": part(name, *qformer) | {"num_query_tokens": count}
            for name, count in queries.items()
        },
    )


MODALITIES = ("image", "video", "audio")


def tiny_tokenizer() -> LlamaTokenizer:
    """One token a byte or printable character, no merges."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁"]
    tokens += [chr(c) for c in range(33, 127)]
    return LlamaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])


def tiny_processor(config: AffectGPTConfig, **kwargs: Any) -> AffectGPTProcessor:
    return AffectGPTProcessor.for_config(config, tiny_tokenizer(), **kwargs)


def tiny_config(**text: Any) -> AffectGPTConfig:
    rows = len(tiny_tokenizer())
    blocks = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    branch = blocks | {"num_hidden_layers": 2, "cross_attention_frequency": 1}
    return AffectGPTConfig(
        vision_config=blocks | {"num_hidden_layers": 2, "image_size": 28, "patch_size": 14},
        image_qformer_config=blocks
        | {"num_hidden_layers": 2, "encoder_hidden_size": 16, "num_query_tokens": 4},
        video_qformer_config=branch | {"encoder_hidden_size": 16, "num_query_tokens": 4},
        audio_config=blocks | {"num_hidden_layers": 1, "output_size": 12, "stride": 40},
        audio_qformer_config=branch | {"encoder_hidden_size": 12, "num_query_tokens": 2},
        text_config={
            "model_type": "llama",
            "vocab_size": rows + 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
        }
        | text,
        video_token_id=rows,
        audio_token_id=rows + 1,
    )


def tiny_model(seed: int = 0, std: float = 0.2, **text: Any) -> AffectGPTForConditionalGeneration:
    """Random weights large enough that every input shows in the output; evaluation mode."""
    model = AffectGPTForConditionalGeneration(tiny_config(**text))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or name.endswith(("bias_k", "bias_v")):
                parameter.normal_(0, std, generator=generator)
    return model.eval()


def clip(seed: int, frames: int = 3) -> np.ndarray:
    """uint8 [frames, 20, 30, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (frames, 20, 30, 3), np.uint8)


def sound(seed: int, seconds: float = 2.5) -> np.ndarray:
    """float32 [samples] at 16 kHz."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)
