"""Checkpoints of newer architectures with random weights, in the layout of the published ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emolib.engines.tiny_parts import (
    CHATML,
    IMAGE_SIZE,
    internvl_processor,
    save_random,
    train_tokenizer,
)

HIDDEN, HEADS = 64, 4
# Qwen's special tokens stand at these very ids: ms-swift's template relies on them.
QWEN_FIRST = 151_643
QWEN_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"),
    *("<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)


def text_sizes(kind: str, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": 4096,
        **more,
    }


def internvl_hf(folder: Path, text_type: str) -> Path:
    """InternVL3 ("qwen2") and InternVL3.5 ("qwen3"): InternViT-300M's layout."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    processor, tokenizer = internvl_processor(IMAGE_SIZE, visual_tokens=4, max_tiles=4)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": [IMAGE_SIZE, IMAGE_SIZE],
            "patch_size": [14, 14],
            "norm_type": "layer_norm",
            "attention_bias": True,
            "layer_scale_init_value": 1.0,
            "use_mean_pooling": True,
        },
        text_config=text_sizes(text_type, len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    folder.mkdir()
    save_random(InternVLForConditionalGeneration, config, processor, tokenizer, folder, 0)
    return folder


def _qwen_tokenizer() -> Any:
    """The small tokenizer, filled up so that the special tokens get their published ids."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(train_tokenizer([]).backend_tokenizer.to_str())
    words = state["model"]["vocab"]
    words |= {f"<filler {i}>": i for i in range(len(words), QWEN_FIRST)}
    state["added_tokens"] = []
    fast = Tokenizer.from_str(json.dumps(state))
    fast.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in QWEN_SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
        chat_template=CHATML,
    )
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == 151_655
    return tokenizer


def _qwen_ids() -> dict[str, int]:
    at = {name: QWEN_FIRST + i for i, name in enumerate(QWEN_SPECIAL)}
    return {
        "image_token_id": at["<|image_pad|>"],
        "video_token_id": at["<|video_pad|>"],
        "vision_start_token_id": at["<|vision_start|>"],
        "vision_end_token_id": at["<|vision_end|>"],
    }


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _qwen_tokenizer()
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHATML,
    )
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    config = Qwen2_5_VLConfig(
        text_config=text_sizes("qwen2_5_vl_text", len(tokenizer), rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [1],
            "window_size": 112,
        },
        tie_word_embeddings=False,
        **_qwen_ids(),
    )
    folder.mkdir()
    save_random(Qwen2_5_VLForConditionalGeneration, config, processor, tokenizer, folder, 0)
    return folder


def qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = _qwen_tokenizer()
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHATML,
    )
    rope = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    }
    config = Qwen3VLConfig(
        text_config=text_sizes("qwen3_vl_text", len(tokenizer), rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        tie_word_embeddings=False,
        **_qwen_ids(),
    )
    folder.mkdir()
    save_random(Qwen3VLForConditionalGeneration, config, processor, tokenizer, folder, 0)
    return folder


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "internvl3": lambda folder: internvl_hf(folder, "qwen2"),
    "internvl3_5": lambda folder: internvl_hf(folder, "qwen3"),
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}


def encoded_length(engine: Any, request: Any) -> int:
    """Tokens of a request after ms-swift's template and the model's own processor."""
    _, made = engine._prepare(request)
    try:
        encoded = engine._engine.template.encode(made, return_template_inputs=True)
        return len(encoded["input_ids"])
    finally:
        engine._engine.template.forget()
