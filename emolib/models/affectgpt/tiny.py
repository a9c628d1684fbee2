"""A complete AffectGPT of some 400,000 random weights, for tests and the demo: "tiny:affectgpt".

Every part of the published model is there at a small size, with a tokenizer of its own. Towers
and language model are random and stay frozen: training can only steer what a random language
model says, so the loss falls and the answers stay noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emolib.datasets.demo import lines
from emolib.engines.tiny import IMAGE_SIZE, llama_sizes, save_random, train_tokenizer
from emolib.models.affectgpt.auto import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTProcessor,
)
from emolib.models.affectgpt.prompts import IMAGE_QUESTIONS, PRESETS, build_prompt

_BLOCKS = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
_QUERIES = {"image": 4, "video": 8, "audio": 4}


def build(folder: Path, seed: int) -> None:
    """Write the checkpoint into a folder; about a second once torch is imported."""
    tokenizer = train_tokenizer(
        ["<unk>", "<s>", "</s>"],
        more=_texts(),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    rows = len(tokenizer)
    branch = _BLOCKS | {"num_hidden_layers": 2, "cross_attention_frequency": 1}
    config = AffectGPTConfig(
        vision_config=_BLOCKS
        | {"num_hidden_layers": 2, "image_size": IMAGE_SIZE, "patch_size": IMAGE_SIZE // 4},
        image_qformer_config=_BLOCKS
        | {
            "num_hidden_layers": 2,
            "encoder_hidden_size": 32,
            "num_query_tokens": _QUERIES["image"],
        },
        video_qformer_config=branch
        | {"encoder_hidden_size": 32, "num_query_tokens": _QUERIES["video"]},
        audio_config=_BLOCKS | {"num_hidden_layers": 2, "output_size": 24},
        audio_qformer_config=branch
        | {"encoder_hidden_size": 24, "num_query_tokens": _QUERIES["audio"]},
        text_config=llama_sizes(tokenizer) | {"vocab_size": rows + 2},
        video_token_id=rows,
        audio_token_id=rows + 1,
    )
    processor = AffectGPTProcessor.for_config(config, tokenizer)
    architecture = AffectGPTForConditionalGeneration
    # Small embeddings: what video and sound say must be able to outweigh the last word.
    save_random(architecture, config, processor, tokenizer, folder, seed, embedding=0.05)


def _texts() -> Iterator[str]:
    """What the demo's descriptions and the prompts are made of."""
    yield from IMAGE_QUESTIONS
    for preset in PRESETS:
        yield build_prompt(preset, subtitle="")
    for value in vars(lines).values():
        yield from _strings(value)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
