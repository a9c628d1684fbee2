"""Complete AffectGPTs of some 400,000 random weights, for tests and the demo.

"tiny:affectgpt" is the design of 2024, "tiny:affectgpt2025" that of 2025. Every part of the
published models is there at a small size, with a tokenizer of its own. Towers and language model
are random: training the branches can only steer what a random language model says, so the loss
falls and the answers stay noise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from emolib.datasets.demo import lines
from emolib.engines.tiny_parts import (
    IMAGE_SIZE,
    llama_sizes,
    random_model,
    save_random,
    train_tokenizer,
)
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


def build_2025(folder: Path, seed: int) -> None:
    """Write tiny CLIP, HuBERT and Qwen2 folders and assemble them; about three seconds."""
    import torch

    from emolib.models.affectgpt.assemble import assemble

    # Loading a model draws random numbers too.
    with tempfile.TemporaryDirectory() as home, torch.random.fork_rng(devices=[]):
        vision, audio, llm, made = (Path(home) / name for name in ("v", "a", "l", "made"))
        save_clip(vision, seed)
        save_hubert(audio, seed)
        save_qwen(llm, seed)
        assemble(vision, audio, llm, made, pre_fusion_size=32, seed=seed)
        model = AffectGPTForConditionalGeneration.from_pretrained(made, dtype="float32")
        model.save_pretrained(folder)
        AffectGPTProcessor.from_pretrained(made).save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def save_clip(folder: Path, seed: int = 0) -> None:
    """A tiny CLIP with its image processor's settings."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = _BLOCKS | {"num_hidden_layers": 2, "projection_dim": 24}
    config = CLIPVisionConfig(**sizes, image_size=IMAGE_SIZE, patch_size=IMAGE_SIZE // 4)
    save_weights(lambda: CLIPVisionModelWithProjection(config), folder, seed)
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=side).save_pretrained(
        folder
    )


def save_hubert(folder: Path, seed: int = 0) -> None:
    """A tiny HuBERT with its feature extractor's settings."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    config = HubertConfig(
        **_BLOCKS,
        num_hidden_layers=5,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 8),
        conv_stride=(8, 8, 8),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
    )
    save_weights(lambda: HubertModel(config), folder, seed)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def save_qwen(folder: Path, seed: int = 0) -> None:
    """A tiny Qwen2 with a tokenizer that has no start token, as Qwen's."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = train_tokenizer(
        ["<|endoftext|>", "<|im_end|>"],
        more=_texts(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    sizes = llama_sizes(tokenizer) | {"model_type": "qwen2", "vocab_size": len(tokenizer) + 8}
    config = AutoConfig.for_model(**sizes)
    build = partial(AutoModelForCausalLM.from_config, config)
    save_weights(build, folder, seed, embedding=0.05)  # as above
    tokenizer.save_pretrained(folder)


def save_weights(build: Callable[[], Any], folder: Path, seed: int, embedding: float = 0.5) -> None:
    """Write a part with random weights wide enough that its input shows in its output."""
    random_model(build, seed, embedding).save_pretrained(folder)


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
