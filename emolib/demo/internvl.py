"""The nano InternVL: zero-shot question, captions, similarity, labels out of descriptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emolib.demo import language, loop, texts, tower
from emolib.demo.card import measured, save
from emolib.demo.language import Speaker
from emolib.demo.pictures import Pictures, first, worlds
from emolib.demo.recipe import Recipe
from emolib.engines.tiny_parts import internvl_processor
from emolib.hashing import key_of

STYLE = 0
SIZE, PATCH = 96, 8  # px: a face is some 4 patches high
_SHUFFLE = 0.25  # 16 patches become one token
_TOKENS = 9  # a picture
_WIDTH, _HEADS = 64, 4  # of the tower
_SPOKEN = 128  # of the language model
_CONTEXT = 2048
_MERGES = 4000  # until every word of the world is one token
SHARES = {"clip": (0.5, 12), "picture": (0.2, 24), "judge": (0.24, 16), "extract": (0.06, 12)}
# Then the words, which are learnt late: short questions, most of them about text.
READING = {
    "clip": (0.2, 12),
    "words": (0.35, 16),
    "picture": (0.1, 16),
    "judge": (0.3, 24),
    "extract": (0.05, 12),
}
CHECKS = {"clip": (1.0, 1), "picture": (1.0, 1), "judge": (1.0, 1), "extract": (1.0, 1)}


def build(seed: int) -> tuple[Any, Any]:
    """Make the untrained model and its processor."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    processor, tokenizer = internvl_processor(
        SIZE, _TOKENS, 1, context=None, more=texts.corpus(), merges=_MERGES
    )
    config = InternVLConfig(
        vision_config={
            "hidden_size": _WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": _HEADS,
            "intermediate_size": 4 * _WIDTH,
            "image_size": [SIZE, SIZE],
            "patch_size": [PATCH, PATCH],
            "norm_type": "layer_norm",
            "attention_bias": True,
            "use_qk_norm": False,
            "layer_scale_init_value": 0.5,
            "use_mean_pooling": True,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": _SPOKEN,
            "intermediate_size": 3 * _SPOKEN,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": _CONTEXT,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=_TOKENS,
        downsample_ratio=_SHUFFLE,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config).float()
    loop.spread_weights([model.model.vision_tower, model.model.multi_modal_projector], seed)
    with torch.no_grad():
        places = model.model.vision_tower.embeddings.position_embeddings
        places[0, 1:] = tower.places(SIZE // PATCH, _WIDTH)
        for layer in model.model.vision_tower.encoder.layer[:2]:
            attention = layer.attention
            tower.local_attention(attention.q_proj.weight, attention.k_proj.weight, _HEADS, 2.0)
        model.model.language_model.embed_tokens.weight.normal_(0.0, 0.06)
    return model, processor


def write(prompt: str, pictures: int) -> str:
    """Write a question as ms-swift's "internvl_hf" template does."""
    shown = ("<img>" + "<IMG_CONTEXT>" * _TOKENS + "</img>\n") * pictures
    return f"<|im_start|>user\n{shown}{prompt}<|im_end|>\n<|im_start|>assistant\n"


def speaker(model: Any, processor: Any) -> Speaker:
    """Give the language model with its way of writing."""
    return Speaker(
        language=model.model.language_model,
        head=model.lm_head,
        tokenizer=processor.tokenizer,
        image_id=model.config.image_token_id,
        image_tokens=_TOKENS,
        write=write,
        end="<|im_end|>\n",
    )


def picture_tokens(model: Any) -> Callable[[np.ndarray], torch.Tensor]:
    """Give the function from uint8 pictures to projected tokens [n, 9, width]."""

    def tokens(pixels: np.ndarray) -> torch.Tensor:
        found = model.model.get_image_features(pixel_values=tower.normalised(pixels, SIZE))
        return getattr(found, "pooler_output", found)

    return tokens


def train_tower(
    model: Any, pictures: Pictures, val: Pictures, steps: int, folder: Path, seed: int
) -> tuple[list[float], dict[str, float]]:
    """Train vision tower and projector; returns losses and validation accuracies."""
    heads = tower.Heads(_SPOKEN)
    tokens = picture_tokens(model)
    modules = {
        "tower": model.model.vision_tower,
        "projector": model.model.multi_modal_projector,
        "heads": heads,
    }
    patches = model.model.vision_tower.embeddings.patch_embeddings.projection
    tower.start_patches(patches.weight, patches.bias, pictures, SIZE, seed)
    losses = loop.train(
        modules,
        tower.picture_loss(pictures, tokens, heads, batch=16, seed=seed),
        loop.Phase("tower", steps, rate=2e-3),
        folder,
        check=lambda: str(tower.accuracy(val, tokens, heads)),
    )
    return losses, tower.accuracy(val, tokens, heads)


def train_language(
    model: Any, processor: Any, pictures: Pictures, val: Pictures, recipe: Recipe, folder: Path
) -> tuple[list[float], dict[str, float]]:
    """Train the language model on the finished tower's tokens; returns losses and agreement."""
    tokens, seed = picture_tokens(model), recipe.seed
    voice = speaker(model, processor)
    known = language.kept(folder, pictures, tokens, seed)
    fresh = language.seen(val, tokens, None)
    asked = language.kinds(val, STYLE, CHECKS)
    losses: list[float] = []
    named = f"{recipe.language_steps}-{pictures.world.clips}"
    for phase, shares in (
        (loop.Phase(f"language-{named}", recipe.language_steps, rate=2e-3, decay=0.02), SHARES),
        (
            loop.Phase(
                f"reading-{named}-{recipe.reading_steps}",
                recipe.reading_steps,
                rate=1.5e-3,
                decay=0.02,
                save=100,
            ),
            READING,
        ),
    ):
        losses += loop.train(
            {"language": voice.language},
            language.answer_loss(voice, known, language.kinds(pictures, STYLE, shares), seed),
            phase,
            folder,
            check=lambda: str(language.agreement(voice, fresh, asked, 24, seed)),
        )
    return losses, language.agreement(voice, fresh, asked, 200, seed)


def make(recipe: Recipe, folder: Path, cache: Path) -> Path:
    """Train the model and write it to ``folder``."""
    clock = loop.Clock()
    pictures, val = worlds(recipe, cache)
    states = cache / f"internvl-{key_of(**recipe.tower())[:12]}"
    model, processor = build(recipe.seed)
    seeing, saw = train_tower(model, pictures, val, recipe.tower_steps, states, recipe.seed)
    known = first(pictures, recipe.language_clips)
    saying, said = train_language(model, processor, known, val, recipe, states)
    facts = measured(seeing, saw, saying, said, clock)
    return save(model, processor, folder, name="internvl", recipe=recipe, facts=facts)
