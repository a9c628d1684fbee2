"""Sizes and tokenizer of the nano AffectGPT: 2.4 M weights of the published architecture."""

from __future__ import annotations

from typing import Any

from emolib.demo.affectgpt import texts
from emolib.engines.tiny_parts import train_bpe
from emolib.models.affectgpt.auto import AffectGPTConfig, AffectGPTProcessor
from emolib.models.affectgpt.prompts import STOP

IMAGE_SIZE, PATCH = 96, 8  # px, as the nano InternVL's tower; a face is some four patches high
QUERIES = {"image": 8, "video": 12, "audio": 4}
CLIPS = 4  # two-second clips of a recording
_MERGES = 1300
_CONTEXT = 1024
_STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # too small to drop from


def blocks(width: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    """Sizes every kind of transformer here has."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def config_for(tokenizer: Any) -> AffectGPTConfig:
    """The model's configuration; placeholders are the tokenizer's last two rows."""
    rows = len(tokenizer)
    branch = blocks(80, 80, 2, 4) | _STILL | {"cross_attention_frequency": 1}
    return AffectGPTConfig(
        vision_config=blocks(64, 256, 4, 4) | {"image_size": IMAGE_SIZE, "patch_size": PATCH},
        image_qformer_config=blocks(96, 192, 2, 4)
        | _STILL
        | {
            "encoder_hidden_size": 64,
            "num_query_tokens": QUERIES["image"],
            "cross_attention_frequency": 1,
        },
        video_qformer_config=branch
        | {"encoder_hidden_size": 96, "num_query_tokens": QUERIES["video"]},
        audio_config=blocks(96, 192, 3, 4) | {"output_size": 96, "stride": 16},
        audio_qformer_config=branch
        | {"encoder_hidden_size": 96, "num_query_tokens": QUERIES["audio"]},
        text_config=blocks(128, 384, 4, 4)
        | {
            "model_type": "llama",
            "vocab_size": rows + 2,
            "num_key_value_heads": 4,
            "max_position_embeddings": _CONTEXT,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        max_clips=CLIPS,
        video_token_id=rows,
        audio_token_id=rows + 1,
    )


def build_tokenizer(rows: int = 3000) -> Any:
    """Byte-level BPE over the world's texts, prompts' sentences as single tokens."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    bpe = train_bpe(texts.corpus(rows), ["<unk>", "<s>", "</s>"], _MERGES)
    phrases = [*texts.prompt_phrases(), STOP]
    bpe.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )


def processor_for(config: AffectGPTConfig, tokenizer: Any) -> AffectGPTProcessor:
    """The processor that goes with the model."""
    return AffectGPTProcessor.for_config(config, tokenizer)
