"""InternVL-Chat-V1.5 with random weights for benchmarks, and the arithmetic it needs.

The weights are made where the model runs, so 26B needs neither a checkpoint nor disk space; the
folder that ms-swift is given holds everything but weights. Speed does not depend on their values.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import weightless
from transformers import InternVLConfig, InternVLForConditionalGeneration

from emolib.engines.tiny_parts import internvl_processor
from emolib.files import write_jsonl
from emolib.models.internvl import settings

_VIT_6B = {
    "qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm", "patch_size": 14,
    "layer_norm_eps": 1e-6,
}  # fmt: skip
_INTERNLM2 = {
    "architectures": ["InternLM2ForCausalLM"], "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5, "rope_theta": 1_000_000,
}  # fmt: skip
# Published configurations: 26b is V1.5's towers, InternViT-6B-448px-V1-5 and internlm2-chat-20b.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "force_image_size": 56,
        "vision_config": _VIT_6B | {
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 128, "image_size": 56,
        },
        "llm_config": _INTERNLM2 | {
            "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
            "num_key_value_heads": 2, "intermediate_size": 256, "vocab_size": 1536,
        },
    },
    "26b": {
        "force_image_size": 448,
        "vision_config": _VIT_6B | {
            "hidden_size": 3200, "num_hidden_layers": 45, "num_attention_heads": 25,
            "intermediate_size": 12800, "image_size": 448,
        },
        "llm_config": _INTERNLM2 | {
            "hidden_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 48,
            "num_key_value_heads": 8, "intermediate_size": 16384, "vocab_size": 92553,
            "rope_scaling": {"factor": 3.0, "type": "dynamic"},
        },
    },
}  # fmt: skip


def config_of(size: str, layers: int = 0, image_token: int = 7) -> InternVLConfig:
    """The native configuration of one of :data:`SIZES`; ``layers`` in each tower, 0 = all."""
    config = InternVLConfig(**settings.native(SIZES[size], image_token))
    if layers:
        for tower in (config.vision_config, config.text_config):
            tower.num_hidden_layers = min(layers, tower.num_hidden_layers)
    return config


def build(config: InternVLConfig, device: str, dtype: torch.dtype, attention: str = "") -> Any:
    """Make the model with random weights where it runs; no second copy exists anywhere."""
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config).to(dtype)
    weightless.fill(model, model.model.language_model, device)
    model.generation_config.pad_token_id = 2
    if attention:
        model.set_attn_implementation(attention)
    return model.eval()


def write_folder(size: str, folder: Path, max_tiles: int, layers: int = 0) -> Path:
    """Write what ms-swift reads beside weights: config, tokenizer, processor, chat template."""
    image = settings.tile_size(SIZES[size])
    tokens = settings.tokens_per_tile(SIZES[size])
    processor, tokenizer = internvl_processor(image, tokens, max_tiles, 32_768)
    config = config_of(size, layers, tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"))
    assert len(tokenizer) <= config.text_config.vocab_size
    return weightless.write_folder(config, processor, folder, InternVLForConditionalGeneration)


def built_on_load(device: str) -> AbstractContextManager[None]:
    """Within, a folder of :func:`write_folder` is loaded by making its weights on ``device``."""

    def made(config: InternVLConfig, more: dict[str, Any]) -> Any:
        dtype = more.get("dtype") or more.get("torch_dtype") or config.dtype
        return build(config, device, dtype, more.get("attn_implementation") or "")

    return weightless.built_on_load(InternVLForConditionalGeneration, made)


def write_rows(folder: Path, size: str, rows: int, frames: int, tiles: int, words: int) -> Path:
    """Write training rows: ``frames`` images of ``tiles`` tiles each and an answer of ``words``.

    An image of 2 x 2 tiles gets a thumbnail as the fifth; only 1 and 5 are made here.
    """
    import cv2

    side = settings.tile_size(SIZES[size]) * {1: 1, 5: 2}[tiles]
    generator = np.random.default_rng(0)
    pictures = []
    for number in range(min(rows * frames, 24)):  # what they show changes nothing
        # smooth, as a video's frames are: noise would take longer to decode
        small = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        pictures.append(str(folder / f"{number}.png"))
        cv2.imwrite(pictures[-1], cv2.resize(small, (side, side)))
    made = []
    for row in range(rows):
        images = [pictures[(row * frames + i) % len(pictures)] for i in range(frames)]
        question = "<image>" * frames + "What does the face show?"
        answer = " the" * words  # one token each
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        made.append({"messages": turns, "images": images})
    return write_jsonl(folder / "rows.jsonl", made)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one pass; a multiplication and an addition are two.

    Attributes:
        vision: Vision tower and projector.
        linear: Matrices of the language model and its output layer.
        attention: The language model's attention products.
        lora: LoRA matrices.
    """

    vision: float
    linear: float
    attention: float
    lora: float = 0.0

    @property
    def forward(self) -> float:
        """One forward pass."""
        return self.vision + self.linear + self.attention + self.lora

    @property
    def lora_step(self) -> float:
        """Forward and backward with frozen weights below LoRA; nothing is computed twice.

        Frozen matrices pass the gradient on (as much again) and have none of their own. Each of
        attention's two products needs both factors' gradients, as each LoRA matrix does. The
        vision tower lies before the first LoRA and has no backward pass.
        """
        return self.vision + 2 * self.linear + 3 * self.attention + 3 * self.lora


def flops(
    model: Any, batch: int, tiles: int, tokens: int, *, logits: int = 0, causal: bool = True
) -> Flops:
    """Count one pass over ``batch`` rows of ``tokens`` tokens, ``tiles`` tiles each.

    Args:
        model: The native model, or one on the meta device; LoRA matrices may be in it.
        batch: Rows.
        tiles: Tiles of a row, thumbnails included.
        tokens: Length of a row, image tokens included.
        logits: Places of a row the output layer is applied to; 0 = all.
        causal: Count the half of attention that a causal mask leaves; False counts the whole
            square, as a profiler does.
    """
    vision, text = model.config.vision_config, model.config.text_config
    named = list(model.named_parameters())

    def matrices(part: str) -> int:
        return sum(
            w.numel()
            for n, w in named
            if part in n and w.ndim == 2 and "embed" not in n and "lora_" not in n
        )

    patches = (vision.image_size[0] // vision.patch_size[0]) ** 2
    seen = batch * tiles * (patches + 1)
    stem = next(w for n, w in named if "patch_embeddings" in n and w.ndim == 4)
    tower = 2.0 * matrices("vision_tower") * seen + 2 * stem.numel() * batch * tiles * patches
    tower += 4 * vision.num_hidden_layers * vision.hidden_size * seen * (patches + 1)
    tower += 2 * matrices("projector") * batch * tiles * model.config.image_seq_length
    output = matrices("lm_head")
    linear = 2.0 * matrices("language_model") * batch * tokens
    linear += 2 * output * batch * (logits or tokens)
    width = text.num_attention_heads * text.head_dim
    attention = (2.0 if causal else 4.0) * text.num_hidden_layers * width * batch * tokens**2
    lora = 2.0 * sum(w.numel() for n, w in named if "lora_" in n) * batch * tokens
    return Flops(tower, linear, attention, lora)
