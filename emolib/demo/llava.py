"""The nano LLaVA: a captioner of another architecture, in other words than the nano InternVL's.

Its CLIP tower starts from the nano InternVL's and is trained on with other draws; projector and
language model are its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emolib import nano
from emolib.demo import language, loop, texts, tower
from emolib.demo.card import measured, save
from emolib.demo.language import Speaker
from emolib.demo.pictures import Pictures, first, worlds
from emolib.demo.recipe import Recipe
from emolib.engines.tiny import llava_processor
from emolib.hashing import key_of

STYLE = 1
SIZE, PATCH = 96, 8  # px: 144 tokens a picture
_TOKENS = (SIZE // PATCH) ** 2
_WIDTH, _HEADS = 64, 4  # of the tower, as the nano InternVL's
_SPOKEN = 112  # of the language model
_CONTEXT = 2048
_MERGES = 4000
DEFAULTS = {"language_clips": 2000, "tower_steps": 900, "language_steps": 500, "seed": 1}
SHARES = {"picture": (1.0, 12)}


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
    pictures, val = worlds(recipe, cache)
    states = cache / f"llava-{key_of(**recipe.tower())[:12]}"
    model, processor = build(recipe.seed)
    seeing, saw = _train_tower(model, pictures, val, recipe, states)
    saying, said = _train_language(model, processor, pictures, val, recipe, states)
    facts = measured(seeing, saw, saying, said, clock)
    return save(model, processor, folder, name="llava", recipe=recipe, facts=facts)


def seen_before() -> Any:
    """Load the vision tower of the nano InternVL."""
    from transformers import InternVLForConditionalGeneration

    whole = InternVLForConditionalGeneration.from_pretrained(nano.folder("internvl"))
    return whole.float().model.vision_tower


@torch.no_grad()
def _take_over(clip: Any, internvl: Any) -> None:
    """Start a CLIP tower from an InternViT of the same sizes.

    Both are pre-norm transformers: the scale of each InternViT branch goes into the branch's
    last layer. CLIP alone norms its embeddings first, so their spread becomes that norm's scale
    and training has to make up the rest. The last layer, which LLaVA does not read, stays as
    it is.
    """
    there, here = internvl.embeddings, clip.embeddings
    here.patch_embedding.weight.copy_(there.patch_embeddings.projection.weight)
    places = there.position_embeddings[0].clone()
    places[1:] += there.patch_embeddings.projection.bias  # CLIP's patches have none
    here.position_embedding.weight.copy_(places)
    here.class_embedding.copy_(there.cls_token[0, 0])
    for new, old in zip(clip.encoder.layers, internvl.encoder.layer, strict=False):
        new.layer_norm1.load_state_dict(old.layernorm_before.state_dict())
        new.layer_norm2.load_state_dict(old.layernorm_after.state_dict())
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(new.self_attn, name).load_state_dict(getattr(old.attention, name).state_dict())
        for layer, source, scale in (
            (new.self_attn.out_proj, old.attention.projection_layer, old.lambda_1),
            (new.mlp.fc2, old.mlp.fc2, old.lambda_2),
        ):
            layer.weight.copy_(source.weight * scale[:, None])
            layer.bias.copy_(source.bias * scale)
        new.mlp.fc1.load_state_dict(old.mlp.fc1.state_dict())


def _train_tower(
    model: Any, pictures: Pictures, val: Pictures, recipe: Recipe, states: Path
) -> tuple[list[float], dict[str, float]]:
    vision, heads = model.model.vision_tower, tower.Heads(_SPOKEN)
    tokens = picture_tokens(model)
    _take_over(vision, seen_before())
    losses = loop.train(
        {"tower": vision, "projector": model.model.multi_modal_projector, "heads": heads},
        tower.picture_loss(pictures, tokens, heads, batch=16, seed=recipe.seed),
        loop.Phase("tower", recipe.tower_steps, rate=1e-3, save=100),
        states,
        check=lambda: str(tower.accuracy(val, tokens, heads)),
    )
    return losses, tower.accuracy(val, tokens, heads)


def _train_language(
    model: Any, processor: Any, pictures: Pictures, val: Pictures, recipe: Recipe, states: Path
) -> tuple[list[float], dict[str, float]]:
    tokens, voice = picture_tokens(model), speaker(model, processor)
    steps, seed = recipe.language_steps, recipe.seed
    pictures = first(pictures, recipe.language_clips)
    known = language.kept(states, pictures, tokens, seed)
    fresh = language.seen(val, tokens, None)
    asked = language.kinds(val, STYLE, SHARES)
    losses = loop.train(
        {"language": voice.language},
        language.answer_loss(voice, known, language.kinds(pictures, STYLE, SHARES), seed),
        loop.Phase(
            f"language-{steps}-{pictures.world.clips}", steps, rate=2e-3, decay=0.02, save=100
        ),
        states,
        check=lambda: str(language.agreement(voice, fresh, asked, 24, seed)),
    )
    return losses, language.agreement(voice, fresh, asked, 200, seed)
