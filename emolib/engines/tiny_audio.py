"""The tiny checkpoint that hears: Qwen2-Audio's architecture with random weights."""

from __future__ import annotations

from pathlib import Path

from emolib.engines.tiny_parts import llama_sizes, save_random, train_tokenizer

SECONDS = 6  # what the tiny encoder hears at once; the published one hears 30
_MELS, _WIDTH = 128, 32
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}Audio: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path, seed: int) -> None:
    """Write ``Qwen2AudioForConditionalGeneration``: Whisper's encoder, projector, Qwen2."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special += ["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"]
    tokenizer = train_tokenizer(
        special, pad_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=_CHATML
    )
    processor = Qwen2AudioProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=_MELS, chunk_length=SECONDS),
        tokenizer=tokenizer,
        chat_template=_CHATML,
    )
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": _MELS,
            "d_model": _WIDTH,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 2 * _WIDTH,
            "max_source_positions": 50 * SECONDS,
        },
        text_config={**llama_sizes(tokenizer), "model_type": "qwen2"},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    save_random(Qwen2AudioForConditionalGeneration, config, processor, tokenizer, folder, seed)
