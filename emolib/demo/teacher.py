"""The nano teacher: a captioner of the InternVL architecture with eyes of its own.

It shares no weight with the nano InternVL, which is the student, and knows both domains.
"""

from __future__ import annotations

from pathlib import Path

from emolib.demo import domains, internvl, loop, tower
from emolib.demo.card import measured, save
from emolib.demo.recipe import Recipe
from emolib.hashing import key_of

DEFAULTS = {
    "target_clips": 5000,
    "language_clips": 800,  # of each domain
    "tower_steps": 3200,
    "language_steps": 300,
    "seed": 3,
}


def make(recipe: Recipe, folder: Path, cache: Path) -> Path:
    """Train the model and write it to ``folder``."""
    clock = loop.Clock()
    made = domains.both(recipe, cache)
    states = cache / f"teacher-{key_of(**recipe.tower())[:12]}"
    model, processor = internvl.build(recipe.seed)
    tokens, inner = internvl.picture_tokens(model), model.model
    patches = inner.vision_tower.embeddings.patch_embeddings.projection
    tower.start_patches(patches.weight, patches.bias, made["base"][0], internvl.SIZE, recipe.seed)
    parts = {"tower": inner.vision_tower, "projector": inner.multi_modal_projector}
    width = model.config.text_config.hidden_size
    seeing, saw = domains.train_tower(parts, tokens, width, made, recipe, states, rounds=2)
    voice = internvl.speaker(model, processor)
    style = internvl.STYLE
    saying, said = domains.train_captions(voice, tokens, style, made, recipe, states)
    facts = measured(seeing, saw, saying, said, clock)
    return save(model, processor, folder, name="teacher", recipe=recipe, facts=facts)
