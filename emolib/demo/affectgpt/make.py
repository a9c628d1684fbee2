"""The nano AffectGPT: frozen parts that know the world, branches that are still to be trained.

Three parts are trained apart: the language model on texts, the image tower with its Q-Former on
pictures, the audio tower on sounds. The branches, which notebook 04 trains, get a short start of
their own (:mod:`emolib.demo.affectgpt.branches`) and are only begun.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from emolib.demo import loop
from emolib.demo.affectgpt import branches, language, sizes, towers
from emolib.demo.affectgpt.sounds import Sounds, spoken
from emolib.demo.card import save
from emolib.demo.pictures import Pictures, World, worlds
from emolib.demo.recipe import Recipe
from emolib.hashing import key_of
from emolib.models.affectgpt.auto import AffectGPTForConditionalGeneration

DEFAULTS = {"tower_steps": 1400, "language_steps": 2700}
#: Few: what a place says is there, and not yet sure or clear.
BRANCH_STEPS = 60
BRANCHES = (
    f"just begun: {BRANCH_STEPS} steps on the base domain, in which they learn to write notes for "
    "the language model, never through it; notebook 04 trains them"
)
Scores = dict[str, float]


def build(seed: int, texts: int = 3000) -> tuple[Any, Any]:
    """Make the untrained model and its processor.

    Args:
        seed: Of the weights.
        texts: Descriptions the tokenizer is made from.
    """
    tokenizer = sizes.build_tokenizer(texts)
    config = sizes.config_for(tokenizer)
    torch.manual_seed(seed)
    model = AffectGPTForConditionalGeneration(config).float()
    loop.spread_weights([model.image_qformer, model.audio_tower, model.language_model], seed)
    with torch.no_grad():
        model.image_qformer.query_tokens.normal_(0.0, 1.0)
        model.get_input_embeddings().weight.normal_(0.0, 0.06)
    return model, sizes.processor_for(config, tokenizer)


def train_language(model: Any, processor: Any, steps: int, folder: Path, seed: int) -> list[float]:
    """Train the language model in five phases; returns the losses. Some 0.4 s a step on one core.

    First lists of what is there, then everything, then reading, then other openings and places,
    at last those of the other domain among them.
    """
    lists, reading, openings, abroad = (steps * part // 54 for part in (5, 10, 12, 6))
    everything, losses = steps - lists - reading - openings - abroad, []
    for number, phase in enumerate(
        (
            loop.Phase(f"lists-{lists}", lists, rate=2e-3, of=4 * lists),
            loop.Phase(f"language-{everything}", everything, rate=2e-3, of=everything * 26 // 10),
            loop.Phase(f"reading-{reading}", reading, rate=1.5e-3, save=100),
            loop.Phase(f"openings-{openings}", openings, rate=1.2e-3, save=100),
            loop.Phase(f"abroad-{abroad}", abroad, rate=1.2e-3, save=100),
        )
    ):
        loss = language.answer_loss(model, processor, number, batch=16, seed=seed)
        losses += loop.train({"language": model.language_model}, loss, phase, folder)
    return losses


def train_sight(
    model: Any, pictures: Pictures, val: Pictures, steps: int, folder: Path, seed: int
) -> tuple[list[float], Scores]:
    """Train image tower and Q-Former; returns losses and validation accuracies.

    The tower starts from the nano InternVL's. 0.2 s a step on one core.
    """
    torch.manual_seed(seed)
    heads = towers.PictureHeads(model.config.image_qformer_config.hidden_size)
    towers.take_over(model.vision_tower, towers.seen_before())
    first, losses = steps * 6 // 7, []
    for number, phase in enumerate(
        (
            loop.Phase(f"sight-{first}", first, rate=1.5e-3, of=first * 3 // 2),
            loop.Phase(f"settling-{steps}", steps - first, rate=7e-4, warmup=0.0),
        )
    ):
        losses += loop.train(
            {"tower": model.vision_tower, "qformer": model.image_qformer, "heads": heads},
            towers.picture_loss(model, heads, pictures, batch=16, seed=seed + number),
            phase,
            folder,
            check=lambda: str(towers.picture_accuracy(model, heads, val)),
        )
    plain = towers.picture_accuracy(model, heads, val)
    filmed = towers.picture_accuracy(model, heads, val, share=1.0)
    return losses, plain | {f"{k}, other cameras": filmed[k] for k in ("core", "body", "setting")}


def train_hearing(
    model: Any, sounds: Sounds, val: Sounds, steps: int, folder: Path, seed: int
) -> tuple[list[float], Scores]:
    """Train the audio tower; returns losses and validation accuracies."""
    torch.manual_seed(seed)
    audio = model.config.audio_config
    heads = towers.SoundHeads(audio.output_size, audio.patch_grid[0] * audio.hidden_size)
    towers.start_sounds(model, sounds, seed)
    first, losses = steps * 10 // 14, []
    for number, phase in enumerate(
        (
            loop.Phase(f"hearing-{first}", first, rate=1e-3, of=first * 25 // 10, muon=False),
            loop.Phase(f"listening-{steps}", steps - first, rate=6e-4, save=100, muon=False),
        )
    ):
        losses += loop.train(
            {"tower": model.audio_tower, "heads": heads},
            towers.sound_loss(model, heads, sounds, batch=24, seed=seed + number),
            phase,
            folder,
            check=lambda: str(towers.sound_accuracy(model, heads, val)),
        )
    return losses, towers.sound_accuracy(model, heads, val)


def train_branches(
    model: Any,
    processor: Any,
    pictures: Pictures,
    sounds: Sounds,
    steps: int,
    folder: Path,
    seed: int,
    clips: int = 1200,
) -> list[float]:
    """Give the branches a start; returns the losses. The towers run once over the clips."""
    clips = min(clips, len(sounds.mel))
    chosen = [i for i in range(clips) if not pictures.close[i]]
    seen, heard = branches.features(model, pictures, sounds, chosen)
    specs = [pictures.world.spec(i) for i in chosen]
    return loop.train(
        {"video": model.video_branch, "audio": model.audio_branch},
        branches.loss(model, processor, specs, seen, heard, batch=32, seed=seed),
        loop.Phase(f"branches-{steps}", steps, rate=2e-3, muon=False),
        folder,
    )


def hearing_worlds(recipe: Recipe, cache: Path) -> tuple[Sounds, Sounds]:
    """Sounds a recipe learns from and is measured on; fewer than pictures, which differ more."""
    seed = recipe.world_seed
    return (
        spoken(World(clips=recipe.clips * 5 // 8, seed=seed), sizes.CLIPS, cache, 2),
        spoken(World(clips=recipe.val_clips, split="val", seed=seed), sizes.CLIPS, cache, 2),
    )


def states(recipe: Recipe, cache: Path) -> Path:
    """Folder of the phases' checkpoints."""
    steps = ("tower_steps", "language_steps")
    common = {key: value for key, value in asdict(recipe).items() if key not in steps}
    return cache / f"affectgpt-{key_of(**common)[:12]}"


def make(recipe: Recipe, folder: Path, cache: Path) -> Path:
    """Train the frozen parts and the branches' beginning, and write the model to ``folder``."""
    clock = loop.Clock()
    model, processor = build(recipe.seed)
    kept, seed = states(recipe, cache), recipe.seed
    saying = train_language(model, processor, recipe.language_steps, kept, seed)
    pictures = worlds(recipe, cache)
    seeing, saw = train_sight(model, *pictures, recipe.tower_steps, kept, seed)
    sounds = hearing_worlds(recipe, cache)
    hearing, heard = train_hearing(model, *sounds, recipe.tower_steps, kept, seed)
    both = (pictures[0], sounds[0])
    telling = train_branches(model, processor, *both, BRANCH_STEPS, kept, seed)
    phases = {"language": saying, "sight": seeing, "hearing": hearing, "branches": telling}
    facts = {
        "steps": {name: len(losses) for name, losses in phases.items()},
        "losses": {name: loop.ends(losses) for name, losses in phases.items()},
        "scores": {f"sees {k}": v for k, v in saw.items()}
        | {f"hears {k}": v for k, v in heard.items()},
        "starts_from": "the image tower: nano:internvl's of the same revision",
        "branches": BRANCHES,
        "time": clock.read(),
    }
    return save(model, processor, folder, name="affectgpt", recipe=recipe, facts=facts)
