"""Qwen-Omni checkpoints with random weights, in the layout of the published ones.

Only the thinker, which reads and writes text; the published folders also hold a voice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emolib.engines.tiny_parts import save_random, train_tokenizer
from emolib.rehearsal.words import OMNI2_NAMES, OMNI3_NAMES
from tests.tiny_models import HIDDEN, text_sizes

SECONDS = 6  # what the tiny encoders hear at once
_MELS = 128


def _tokenizer(marks: dict[str, str]) -> Any:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *marks.values()]
    return train_tokenizer(
        special, pad_token="<|endoftext|>", eos_token="<|im_end|>", extra_special_tokens=marks
    )


def _ids(tokenizer: Any, marks: dict[str, str], *names: str) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(marks[name]) for name in names]


def qwen2_5_omni(folder: Path) -> Path:
    """Qwen2.5-Omni."""
    import torch
    from transformers import (
        Qwen2_5OmniConfig,
        Qwen2_5OmniForConditionalGeneration,
        Qwen2_5OmniProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    marks = OMNI2_NAMES
    tokenizer = _tokenizer(marks)
    processor = Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=WhisperFeatureExtractor(feature_size=_MELS, chunk_length=SECONDS),
        tokenizer=tokenizer,
    )
    audio, image, video = _ids(tokenizer, marks, "audio_token", "image_token", "video_token")
    start, end = _ids(tokenizer, marks, "audio_bos_token", "audio_eos_token")
    seen, shown = _ids(tokenizer, marks, "vision_bos_token", "vision_eos_token")
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    config = Qwen2_5OmniConfig(
        thinker_config={
            "audio_config": {
                "num_mel_bins": _MELS,
                "d_model": 32,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 64,
                "output_dim": HIDDEN,
                "max_source_positions": 50 * SECONDS,
            },
            "vision_config": {
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 2,
                "out_hidden_size": HIDDEN,
                "fullatt_block_indexes": [1],
            },
            "text_config": text_sizes("qwen2_5_omni_text", len(tokenizer), rope_parameters=rope),
            "audio_token_index": audio,
            "image_token_index": image,
            "video_token_index": video,
            "audio_start_token_id": start,
            "audio_end_token_id": end,
            "vision_start_token_id": seen,
            "vision_end_token_id": shown,
        },
        enable_audio_output=False,
    )
    folder.mkdir()
    save_random(Qwen2_5OmniForConditionalGeneration, config, processor, tokenizer, folder, 0)
    torch.save({}, folder / "spk_dict.pt")  # voices; the class reads the file in any case
    return folder


def qwen3_omni(folder: Path) -> Path:
    """Qwen3-Omni: two of four experts a token."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3OmniMoeConfig,
        Qwen3OmniMoeForConditionalGeneration,
        Qwen3OmniMoeProcessor,
        WhisperFeatureExtractor,
    )

    marks = OMNI3_NAMES
    tokenizer = _tokenizer(marks)
    processor = Qwen3OmniMoeProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16),
        video_processor=Qwen2VLVideoProcessor(patch_size=16),
        feature_extractor=WhisperFeatureExtractor(feature_size=_MELS, chunk_length=SECONDS),
        tokenizer=tokenizer,
    )
    audio, image, video = _ids(tokenizer, marks, "audio_token", "image_token", "video_token")
    [start] = _ids(tokenizer, marks, "audio_bos_token")
    [seen] = _ids(tokenizer, marks, "vision_bos_token")
    rope = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    }
    config = Qwen3OmniMoeConfig(
        thinker_config={
            "audio_config": {
                "num_mel_bins": _MELS,
                "d_model": 32,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 64,
                "output_dim": HIDDEN,
                "downsample_hidden_size": 16,
            },
            "vision_config": {
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 2,
                "out_hidden_size": HIDDEN,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
            "text_config": text_sizes(
                "qwen3_omni_moe_text",
                len(tokenizer),
                rope_parameters=rope,
                moe_intermediate_size=32,
                num_experts=4,
                num_experts_per_tok=2,
            ),
            "audio_token_id": audio,
            "image_token_id": image,
            "video_token_id": video,
            "audio_start_token_id": start,
            "vision_start_token_id": seen,
        },
        enable_audio_output=False,
    )
    folder.mkdir()
    save_random(Qwen3OmniMoeForConditionalGeneration, config, processor, tokenizer, folder, 0)
    return folder
