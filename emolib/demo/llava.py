"""The nano LLaVA: a captioner of another architecture than the nano InternVL.

It knows both domains (:mod:`emolib.demo.domains`), and nothing in it comes from the nano InternVL,
so that where both say the same it is not because they share their eyes. Its wordings are the same:
a student that has to learn other words for all it says forgets what it knew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emolib.demo import domains, loop, texts, tower
from emolib.demo.card import measured, save
from emolib.demo.language import Speaker
from emolib.demo.pictures import Pictures
from emolib.demo.recipe import Recipe
from emolib.engines.tiny_parts import llava_processor
from emolib.hashing import key_of

STYLE = 0
SIZE, PATCH = 96, 8  # px: 144 tokens a picture
_TOKENS = (SIZE // PATCH) ** 2
_WIDTH, _HEADS = 64, 4  # of the tower, as the nano InternVL's
_SPOKEN = 112  # of the language model
_CONTEXT = 2048
_MERGES = 4000
DEFAULTS = {
    "clips": 8000,
    "target_clips": 5000,
    "language_clips": 1500,  # of each domain
    "tower_steps": 3600,
    "language_steps": 600,
    "seed": 1,
}


def build(seed: int) -> tuple[Any, Any]:
    """Make the untrained model and its processor."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    processor, tokenizer = llava_processor(
        SIZE,
        PATCH,
        {"image_mean": list(tower.MEAN), "image_std": list(tower.STD)},
        more=texts.corpus(),
        merges=_MERGES,
    )
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": _WIDTH,
            "num_hidden_layers": 5,  # the last is not read, as in LLaVA
            "num_attention_heads": _HEADS,
            "intermediate_size": 4 * _WIDTH,
            "image_size": SIZE,
            "patch_size": PATCH,
            "projection_dim": _WIDTH,
            "hidden_act": "gelu",
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": _SPOKEN,
            "intermediate_size": 3 * _SPOKEN,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": _CONTEXT,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).float()
    vision = model.model.vision_tower
    loop.spread_weights([vision, model.model.multi_modal_projector], seed)
    with torch.no_grad():
        model.model.language_model.embed_tokens.weight.normal_(0.0, 0.06)
    return model, processor


def write(prompt: str, pictures: int) -> str:
    """Write a question as ms-swift's "llava1_5_hf" template does."""
    return f"<s>USER: {('<image>' * _TOKENS + chr(10)) * pictures}{prompt}\nASSISTANT:"


def speaker(model: Any, processor: Any) -> Speaker:
    """Give the language model with its way of writing."""
    return Speaker(
        language=model.model.language_model,
        head=model.lm_head,
        tokenizer=processor.tokenizer,
        image_id=model.config.image_token_index,
        image_tokens=_TOKENS,
        write=write,
        end="</s>",
    )


def picture_tokens(model: Any) -> Callable[[np.ndarray], torch.Tensor]:
    """Give the function from uint8 pictures to projected tokens [n, 144, width]."""

    def tokens(pixels: np.ndarray) -> torch.Tensor:
        found = model.model.get_image_features(
            pixel_values=tower.normalised(pixels, SIZE),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
        rows = getattr(found, "pooler_output", found)
        return torch.stack(tuple(rows)) if isinstance(rows, list | tuple) else rows

    return tokens


def make(recipe: Recipe, folder: Path, cache: Path) -> Path:
    """Train the model and write it to ``folder``."""
    clock = loop.Clock()
    made = domains.both(recipe, cache)
    states = cache / f"llava-{key_of(**recipe.tower())[:12]}"
    model, processor = build(recipe.seed)
    tokens, inner = picture_tokens(model), model.model
    _start(inner.vision_tower, made["base"][0], recipe.seed)
    parts = {"tower": inner.vision_tower, "projector": inner.multi_modal_projector}
    seeing, saw = domains.train_tower(parts, tokens, _SPOKEN, made, recipe, states)
    voice = speaker(model, processor)
    saying, said = domains.train_captions(voice, tokens, STYLE, made, recipe, states)
    facts = measured(seeing, saw, saying, said, clock)
    return save(model, processor, folder, name="llava", recipe=recipe, facts=facts)


@torch.no_grad()
def _start(vision: Any, pictures: Pictures, seed: int) -> None:
    """Start a CLIP tower with principal components and attention to neighbours.

    CLIP's patches have no bias: it goes into the places.
    """
    here, bias = vision.embeddings, torch.zeros(_WIDTH)
    tower.start_patches(here.patch_embedding.weight, bias, pictures, SIZE, seed)
    here.position_embedding.weight[1:] = tower.places(SIZE // PATCH, _WIDTH) + bias
    for layer in vision.encoder.layers[:2]:
        attention = layer.self_attn
        tower.local_attention(attention.q_proj.weight, attention.k_proj.weight, _HEADS, 2.0)
